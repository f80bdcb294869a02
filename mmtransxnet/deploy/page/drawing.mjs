// Drawings of results.

import { nameOf } from './model.mjs';

const OPACITY = 0.5;
const LONGEST = 960; // pixels: small pictures are drawn larger, for the text

/** Draw a picture and its result; objects below a score are left out. */
export function draw(canvas, picture, info, result, minimum) {
  const longer = Math.max(picture.width, picture.height);
  const scale = Math.max(1, Math.floor(LONGEST / longer));
  canvas.width = picture.width * scale;
  canvas.height = picture.height * scale;
  const context = canvas.getContext('2d');
  context.imageSmoothingEnabled = false;
  const painted = paintedPixels(picture, info, result, minimum);
  context.drawImage(painted, 0, 0, canvas.width, canvas.height);
  if (info.task === 'classification') {
    const score = result.scores[result.label].toFixed(2);
    write(context, [0, 0], `${nameOf(info, result.label)} ${score}`, [0, 0, 0]);
  }
  if (info.task === 'detection') {
    drawBoxes(context, info, result.objects, minimum, scale);
  }
}

/** The picture with the colours of masks or of a label map. */
function paintedPixels(picture, info, result, minimum) {
  const { width, height } = picture;
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    image.data.set(picture.data.subarray(i * 3, i * 3 + 3), i * 4);
    image.data[i * 4 + 3] = 255;
  }
  if (info.task === 'segmentation') {
    result.labels.forEach((label, pixel) => {
      blend(image.data, pixel, colourOf(info, label));
    });
  }
  for (const { patch, score, label } of result.objects ?? []) {
    if (!patch || score < minimum) continue;
    patch.pixels.forEach((inside, index) => {
      if (!inside) return;
      const y = patch.top + Math.floor(index / patch.width);
      const x = patch.left + (index % patch.width);
      blend(image.data, y * width + x, colourOf(info, label));
    });
  }
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext('2d').putImageData(image, 0, 0);
  return canvas;
}

function blend(data, pixel, colour) {
  for (let c = 0; c < 3; c++) {
    const value = data[pixel * 4 + c] * (1 - OPACITY) + colour[c] * OPACITY;
    data[pixel * 4 + c] = Math.trunc(value);
  }
}

/** The colour of a class. */
export function colourOf(info, label) {
  return info.palette[label % info.palette.length];
}

function drawBoxes(context, info, objects, minimum, scale) {
  const { width, height } = context.canvas;
  context.lineWidth = Math.max(2, Math.round(Math.min(width, height) / 300));
  // The most certain last, on top of the others.
  const order = [...objects].sort((a, b) => a.score - b.score);
  for (const { box, score, label } of order) {
    if (score < minimum) continue;
    const [x1, y1, x2, y2] = box.map((value) => value * scale);
    const colour = colourOf(info, label);
    context.strokeStyle = `rgb(${colour})`;
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
    const text = `${nameOf(info, label)} ${score.toFixed(2)}`;
    write(context, [x1, y1], text, colour);
  }
}

/** Write on a filled rectangle that stays within the picture. */
function write(context, corner, text, colour) {
  const { width, height } = context.canvas;
  // Readable also where the page shows the drawing smaller than it is.
  const shrunk = Math.max(width / context.canvas.parentElement.clientWidth, 1);
  const size = Math.round(Math.max(14 * shrunk, Math.min(width, height) / 40));
  context.font = `${size}px system-ui, sans-serif`;
  context.textBaseline = 'top';
  const across = context.measureText(text).width + size / 2;
  const down = size * 1.25;
  const x = Math.min(Math.max(corner[0], 0), Math.max(width - across, 0));
  const y = Math.min(Math.max(corner[1] - down, 0), Math.max(height - down, 0));
  context.fillStyle = `rgb(${colour})`;
  context.fillRect(x, y, across, down);
  const light = colour[0] + colour[1] + colour[2] > 3 * 140;
  context.fillStyle = light ? '#000' : '#fff';
  context.fillText(text, x + size / 4, y + size / 8);
}
