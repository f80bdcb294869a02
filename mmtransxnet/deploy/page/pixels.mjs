// The steps of model.json, as predict.py computes them.
//
// A picture is {data, width, height}: red, green, blue in a Uint8Array.

const WEIGHT_BITS = 11; // of OpenCV's weights of bilinear interpolation
const PILLOW_BITS = 22; // of Pillow's weights

/** Round to the nearest integer, halves to the even one. */
export function rint(value) {
  const low = Math.floor(value);
  const rest = value - low;
  if (rest !== 0.5) return rest < 0.5 ? low : low + 1;
  return low % 2 === 0 ? low : low + 1;
}

/** Both neighbours of each new pixel and their weights. */
function taps(size, count) {
  const all = { low: [], high: [], first: [], second: [] };
  const one = 2 ** WEIGHT_BITS;
  for (let i = 0; i < count; i++) {
    const centre = Math.fround((i + 0.5) * (size / count) - 0.5);
    let low = Math.floor(centre);
    let fraction = Math.fround(centre - low);
    if (low < 0 || low >= size - 1) fraction = 0;
    low = Math.min(Math.max(low, 0), size - 1);
    all.low.push(low);
    all.high.push(Math.min(low + 1, size - 1));
    all.first.push(rint(Math.fround(1 - fraction) * one));
    all.second.push(rint(fraction * one));
  }
  return all;
}

/** Resize as OpenCV: half-pixel centres, fixed point, no antialiasing. */
export function resizeBilinear(picture, width, height) {
  if (picture.width === width && picture.height === height) return picture;
  const columns = taps(picture.width, width);
  const rows = taps(picture.height, height);
  const data = new Uint8Array(width * height * 3);
  const across = (y) => {
    const line = new Int32Array(width * 3);
    const start = y * picture.width;
    for (let x = 0; x < width; x++) {
      const left = (start + columns.low[x]) * 3;
      const right = (start + columns.high[x]) * 3;
      for (let c = 0; c < 3; c++) {
        const sum =
          picture.data[left + c] * columns.first[x] +
          picture.data[right + c] * columns.second[x];
        line[x * 3 + c] = sum >> 4;
      }
    }
    return line;
  };
  // Neighbouring rows share their lines.
  let kept = new Map();
  for (let y = 0; y < height; y++) {
    const used = new Map();
    for (const row of [rows.low[y], rows.high[y]]) {
      used.set(row, used.get(row) ?? kept.get(row) ?? across(row));
    }
    kept = used;
    const upper = kept.get(rows.low[y]);
    const lower = kept.get(rows.high[y]);
    for (let i = 0; i < width * 3; i++) {
      const sum =
        ((upper[i] * rows.first[y]) >> 16) +
        ((lower[i] * rows.second[y]) >> 16);
      data[y * width * 3 + i] = (sum + 2) >> 2;
    }
  }
  return { data, width, height };
}

function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

function cubic(x) {
  const t = Math.abs(x);
  if (t < 1) return (1.5 * t - 2.5) * t * t + 1;
  return t < 2 ? ((-0.5 * t + 2.5) * t - 4) * t + 2 : 0;
}

// Pillow's filters: half of the width, and the weight at a distance.
const FILTERS = {
  box: [0.5, (x) => (x > -0.5 && x <= 0.5 ? 1 : 0)],
  bilinear: [1, (x) => Math.max(1 - Math.abs(x), 0)],
  hamming: [
    1,
    (x) =>
      Math.abs(x) < 1 ? sinc(x) * (0.54 + 0.46 * Math.cos(Math.PI * x)) : 0,
  ],
  bicubic: [2, cubic],
  lanczos: [3, (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0)],
};

/** For each new pixel its first pixel and the fixed-point weights. */
function weightsOf(size, count, [support, weight]) {
  const ratio = size / count;
  const scale = Math.max(ratio, 1);
  return Array.from({ length: count }, (_, i) => {
    const centre = (i + 0.5) * ratio;
    const start = Math.max(Math.trunc(centre - support * scale + 0.5), 0);
    const stop = Math.min(Math.trunc(centre + support * scale + 0.5), size);
    const values = [];
    let sum = 0;
    for (let x = start; x < stop; x++) {
      values.push(weight((x - centre + 0.5) * (1 / scale)));
      sum += values.at(-1);
    }
    const fixed = values.map((value) => {
      const scaled = (sum === 0 ? value : value / sum) * 2 ** PILLOW_BITS;
      return Math.trunc(scaled + (scaled < 0 ? -0.5 : 0.5));
    });
    return { start, fixed };
  });
}

/** Filter along an axis; `stride` is between pixels, `lines` across it. */
function filtered(data, weights, size, stride, lines) {
  const count = weights.length;
  const out = new Uint8Array(lines * count * stride);
  for (let line = 0; line < lines; line++) {
    for (let i = 0; i < count; i++) {
      const { start, fixed } = weights[i];
      const from = (line * size + start) * stride;
      const to = (line * count + i) * stride;
      for (let offset = 0; offset < stride; offset++) {
        let sum = 2 ** (PILLOW_BITS - 1);
        for (let k = 0; k < fixed.length; k++) {
          sum += data[from + k * stride + offset] * fixed[k];
        }
        const value = Math.floor(sum / 2 ** PILLOW_BITS);
        out[to + offset] = Math.min(Math.max(value, 0), 255);
      }
    }
  }
  return out;
}

function resizeNearest(picture, width, height) {
  const data = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    const row = Math.floor((y + 0.5) * (picture.height / height));
    for (let x = 0; x < width; x++) {
      const column = Math.floor((x + 0.5) * (picture.width / width));
      const from = (row * picture.width + column) * 3;
      const pixel = picture.data.subarray(from, from + 3);
      data.set(pixel, (y * width + x) * 3);
    }
  }
  return { data, width, height };
}

/** Resize as Pillow, columns first, each pass rounded to bytes. */
export function resizePillow(picture, width, height, kind) {
  if (kind === 'nearest') return resizeNearest(picture, width, height);
  let { data } = picture;
  if (picture.width !== width) {
    const weights = weightsOf(picture.width, width, FILTERS[kind]);
    data = filtered(data, weights, picture.width, 3, picture.height);
  }
  if (picture.height !== height) {
    const weights = weightsOf(picture.height, height, FILTERS[kind]);
    data = filtered(data, weights, picture.height, width * 3, 1);
  }
  return { data, width, height };
}

function resizeTo(picture, width, height, step) {
  const [w, h] = [Math.max(1, width), Math.max(1, height)];
  if ((step.backend ?? 'cv2') === 'pillow') {
    return resizePillow(picture, w, h, step.interpolation ?? 'bilinear');
  }
  return resizeBilinear(picture, w, h);
}

function resize(picture, step, limit) {
  const { width, height } = picture;
  if (!step.keep_ratio) return resizeTo(picture, ...step.scale, step);
  let factor = Math.min(
    Math.max(...step.scale) / Math.max(height, width),
    Math.min(...step.scale) / Math.min(height, width),
  );
  if (limit) factor = Math.min(factor, limit[0] / height, limit[1] / width);
  const [w, h] = [width, height].map((n) => Math.trunc(n * factor + 0.5));
  return resizeTo(picture, w, h, step);
}

function resizeEdge(picture, step) {
  const { width, height } = picture;
  const edge = step.edge ?? 'short';
  const scale = Math.trunc(step.scale);
  const byWidth =
    edge === 'width' ||
    (edge === 'short' && width < height) ||
    (edge === 'long' && width > height);
  if (byWidth) {
    const other = Math.trunc((scale * height) / width);
    return resizeTo(picture, scale, other, step);
  }
  return resizeTo(picture, Math.trunc((scale * width) / height), scale, step);
}

function centerCrop(picture, step) {
  const height = Math.min(step.size[0], picture.height);
  const width = Math.min(step.size[1], picture.width);
  const top = rint((picture.height - height) / 2);
  const left = rint((picture.width - width) / 2);
  const data = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    const start = ((top + y) * picture.width + left) * 3;
    const row = picture.data.subarray(start, start + width * 3);
    data.set(row, y * width * 3);
  }
  return { data, width, height };
}

function resizeToMultiple(picture, step) {
  const up = (size) => Math.ceil(size / step.divisor) * step.divisor;
  return resizeTo(picture, up(picture.width), up(picture.height), step);
}

const STEPS = {
  resize,
  resize_edge: resizeEdge,
  center_crop: centerCrop,
  resize_to_multiple: resizeToMultiple,
};

/** Prepare a picture for a model, whose description is `info`. */
export function prepare(picture, info) {
  const { height, width, steps } = info.input;
  const fixed = height && width ? [height, width] : null;
  const detects = info.task === 'detection';
  let out = picture;
  for (const step of steps) {
    out = STEPS[step.step](out, step, detects ? fixed : null);
  }
  if (!fixed) return out;
  if (!detects) return resizeBilinear(out, width, height);
  if (out.height > height || out.width > width) {
    out = resize(out, { scale: fixed, keep_ratio: true }, fixed);
  }
  return out;
}
