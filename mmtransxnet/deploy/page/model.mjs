// A model in onnxruntime-web, and its results as predict.py gives them.

import * as ort from './runtime/ort.wasm.min.mjs';
import { prepare } from './pixels.mjs';

// More threads need headers that a plain server of files does not send.
ort.env.wasm.numThreads = 1;
// The engine runs in a worker, so that the page answers meanwhile.
ort.env.wasm.proxy = true;

const MASK_ZERO = 48; // the first character of a compressed run length

/** The content of a file of the site. */
export async function fetchFile(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path}: status ${response.status}`);
  return response;
}

/** Load the model of a folder of the site. */
export async function loadModel(folder) {
  const info = await (await fetchFile(`${folder}/model.json`)).json();
  const file = await fetchFile(`${folder}/${info.files.onnx.file}`);
  const bytes = new Uint8Array(await file.arrayBuffer());
  const session = await ort.InferenceSession.create(bytes);
  if (!info.palette?.length) info.palette = colours(info.classes.length);
  return { info, session };
}

/** Colours of classes without a palette: hues far from each other. */
export function colours(count) {
  return Array.from({ length: count }, (_, index) => {
    const hue = (index * 0.618034) % 1;
    const channel = (shift) => {
      const k = (shift + hue * 6) % 6;
      const value = 0.9 - 0.9 * 0.8 * Math.max(Math.min(k, 4 - k, 1), 0);
      return Math.trunc(value * 255);
    };
    return [5, 3, 1].map(channel);
  });
}

function feedsOf(info, picture, size) {
  const [height, width] = [
    info.input.height ?? picture.height,
    info.input.width ?? picture.width,
  ];
  const batch = info.input.batch ?? 1;
  const data = new Uint8Array(batch * height * width * 3);
  const line = picture.width * 3;
  for (let y = 0; y < picture.height; y++) {
    const row = picture.data.subarray(y * line, (y + 1) * line);
    data.set(row, y * width * 3);
  }
  const shape = [batch, height, width, 3];
  const feeds = { images: new ort.Tensor('uint8', data, shape) };
  const integers = (values, shape) =>
    new ort.Tensor('int64', BigInt64Array.from(values, BigInt), shape);
  if (info.task === 'detection') {
    const sizes = Array(batch).fill([picture.height, picture.width]).flat();
    feeds.sizes = integers(sizes, [batch, 2]);
  } else if (info.task === 'segmentation') {
    feeds.target_size = integers([size.height, size.width], [2]);
  }
  return feeds;
}

/** Predict a picture. */
export async function predict({ info, session }, picture) {
  const prepared = prepare(picture, info);
  const size = { height: picture.height, width: picture.width };
  const outputs = await session.run(feedsOf(info, prepared, size));
  const values = (name) => outputs[name].data;
  if (!values('scores').every(Number.isFinite)) {
    throw new Error('the model returned scores that are not finite numbers');
  }
  if (info.task === 'classification') {
    const scores = Array.from(values('scores').subarray(0, outputs.scores.dims[1]));
    return { size, scores, label: scores.indexOf(Math.max(...scores)) };
  }
  if (info.task === 'segmentation') {
    const pixels = size.height * size.width;
    const labels = values('labels').subarray(0, pixels);
    return { size, labels: Uint16Array.from(labels, Number) };
  }
  const scale = {
    x: prepared.width / size.width,
    y: prepared.height / size.height,
  };
  return { size, objects: objectsOf(info, outputs, size, scale) };
}

function objectsOf(info, outputs, size, scale) {
  const { boxes, scores, labels, masks } = outputs;
  const side = masks?.dims[2];
  const objects = [];
  for (let i = 0; i < Number(outputs.count.data[0]); i++) {
    const box = Array.from(boxes.data.subarray(i * 4, i * 4 + 4), (v, k) =>
      Math.fround(v / Math.fround(k % 2 ? scale.y : scale.x)),
    );
    const object = { box, score: scores.data[i], label: Number(labels.data[i]) };
    if (!box.every(Number.isFinite)) {
      throw new Error('the model returned a box that is not of finite numbers');
    }
    if (masks) {
      const raw = masks.data.slice(i * side * side, (i + 1) * side * side);
      if (info.masks.paste) {
        object.patch = pasteMask(raw, side, box, size, info.masks.threshold);
      } else {
        object.raw = raw;
      }
    }
    objects.push(object);
  }
  return objects;
}

/** For each pixel two samples of a mask and their weights. */
function interpolation(start, stop, low, high, samples) {
  const rows = [];
  for (let pixel = start; pixel < stop; pixel++) {
    let where = (pixel + 0.5 - low) / (high - low);
    if (!Number.isFinite(where)) where = 0.5;
    where = where * samples - 0.5;
    const first = Math.floor(where);
    const inside = (k) => k >= 0 && k < samples;
    rows.push([
      [inside(first) ? first : 0, inside(first) ? 1 - (where - first) : 0],
      [inside(first + 1) ? first + 1 : 0, inside(first + 1) ? where - first : 0],
    ]);
  }
  return rows;
}

/** Paste the mask of a box into its picture: a rectangle of zeros and ones. */
export function pasteMask(mask, side, box, size, threshold) {
  const left = Math.max(Math.floor(box[0]) - 1, 0);
  const top = Math.max(Math.floor(box[1]) - 1, 0);
  const right = Math.max(Math.min(Math.ceil(box[2]) + 1, size.width), left);
  const bottom = Math.max(Math.min(Math.ceil(box[3]) + 1, size.height), top);
  const rows = interpolation(top, bottom, box[1], box[3], side);
  const columns = interpolation(left, right, box[0], box[2], side);
  const [height, width] = [bottom - top, right - left];
  const pixels = new Uint8Array(height * width);
  rows.forEach((row, y) => {
    columns.forEach((column, x) => {
      let value = 0;
      for (const [i, a] of row) {
        for (const [j, b] of column) value += a * b * mask[i * side + j];
      }
      pixels[y * width + x] = value >= threshold ? 1 : 0;
    });
  });
  return { pixels, top, left, height, width };
}

/** A pasted mask as COCO's compressed run lengths, column by column. */
export function runLength(patch, size) {
  const counts = [];
  let last = 0;
  let run = 0;
  const add = (value, length) => {
    if (length === 0) return;
    if (value !== last) {
      counts.push(run);
      [last, run] = [value, 0];
    }
    run += length;
  };
  add(0, patch.left * size.height);
  for (let x = 0; x < patch.width; x++) {
    add(0, patch.top);
    for (let y = 0; y < patch.height; y++) {
      add(patch.pixels[y * patch.width + x], 1);
    }
    add(0, size.height - patch.top - patch.height);
  }
  add(0, (size.width - patch.left - patch.width) * size.height);
  counts.push(run);
  return { size: [size.height, size.width], counts: compressed(counts) };
}

/** Differences to the run before the previous, five bits a character. */
function compressed(counts) {
  let text = '';
  counts.forEach((count, index) => {
    let value = index > 2 ? count - counts[index - 2] : count;
    let more = true;
    while (more) {
      const low = value & 31;
      value >>= 5;
      more = value !== (low & 16 ? -1 : 0);
      text += String.fromCharCode(low + MASK_ZERO + (more ? 32 : 0));
    }
  });
  return text;
}

/** The name of a class, its number if the model has no names. */
export function nameOf(info, label) {
  return info.classes[label] ?? String(label);
}

const rounded = (value, digits = 6) => Number(value.toFixed(digits));

/** Classes of a label map, their pixels and shares, the largest first. */
export function sharesOf(labels) {
  const counts = new Map();
  for (const label of labels) counts.set(label, (counts.get(label) ?? 0) + 1);
  return [...counts]
    .map(([label, count]) => ({ label, pixels: count, share: count / labels.length }))
    .sort((a, b) => b.pixels - a.pixels);
}

/** A result as in the JSON of predict.py. */
export function asJson(info, result, minimum) {
  if (info.task === 'classification') {
    const { label, scores } = result;
    return [
      {
        image_id: 0,
        category_id: label,
        name: nameOf(info, label),
        score: rounded(scores[label]),
        scores: scores.map((score) => rounded(score)),
      },
    ];
  }
  if (info.task === 'segmentation') {
    return sharesOf(result.labels)
      .sort((a, b) => a.label - b.label)
      .map(({ label, pixels, share }) => ({
        image_id: 0,
        category_id: label,
        name: nameOf(info, label),
        pixels,
        share: rounded(share),
      }));
  }
  // Entries are kept: the slider asks for them many times a second.
  return result.objects
    .filter(({ score }) => score >= minimum)
    .map((object) => (object.entry ??= objectJson(info, object, result.size)));
}

function objectJson(info, { box, score, label, patch, raw }, size) {
  const [x1, y1, x2, y2] = box;
  const entry = {
    image_id: 0,
    category_id: label,
    name: nameOf(info, label),
    bbox: [x1, y1, x2 - x1, y2 - y1].map((value) => rounded(value, 3)),
    score: rounded(score),
  };
  if (patch) entry.segmentation = runLength(patch, size);
  if (raw) {
    const side = Math.sqrt(raw.length);
    entry.mask = Array.from({ length: side }, (_, y) =>
      Array.from(raw.subarray(y * side, (y + 1) * side), (v) => rounded(v)),
    );
  }
  return entry;
}
