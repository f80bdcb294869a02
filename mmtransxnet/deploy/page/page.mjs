// The page: reads pictures, runs the chosen model, shows the result.

import { colourOf, draw } from './drawing.mjs';
import {
  asJson,
  fetchFile,
  loadModel,
  nameOf,
  predict,
  sharesOf,
} from './model.mjs';

const MAX_RATIO = 100; // of the longer side to the shorter, as predict.py
const MAX_PIXELS = 40e6; // what a page can hold several times
const BEST = 5; // classes in the legend

const part = (id) => document.getElementById(id);
const state = { model: null, picture: null, name: '', result: null };

/** Run one task after another: a model is not for several at a time. */
let queue = Promise.resolve();
function enqueue(task) {
  queue = queue.then(task).catch((error) => fail(error.message));
}

function fail(message) {
  part('error').textContent = message;
  part('status').textContent = '';
}

function say(message) {
  part('error').textContent = '';
  part('status').textContent = message;
}

/** Read a picture, upright. */
async function readPicture(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, {
      colorSpaceConversion: 'none',
      premultiplyAlpha: 'none',
    });
  } catch {
    throw new Error(`${file.name} cannot be decoded: choose another picture`);
  }
  const { width, height } = bitmap;
  const size = `${file.name} has ${width} x ${height} pixels`;
  if (Math.max(width, height) > MAX_RATIO * Math.min(width, height)) {
    throw new Error(`${size}: one side is more than ${MAX_RATIO} times the other`);
  }
  if (width * height > MAX_PIXELS) {
    throw new Error(`${size}, more than ${MAX_PIXELS / 1e6} million`);
  }
  const context = new OffscreenCanvas(width, height).getContext('2d');
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const rgba = context.getImageData(0, 0, width, height).data;
  const data = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i++) {
    data.set(rgba.subarray(i * 4, i * 4 + 3), i * 3);
  }
  return { data, width, height };
}

async function chooseModel(folder) {
  say('Loading the model …');
  const former = state.model;
  [state.model, state.result] = [null, null];
  document.querySelector('.result').hidden = true;
  await former?.session.release();
  state.model = await loadModel(folder);
  const { info } = state.model;
  part('threshold').hidden = info.task !== 'detection';
  if (info.task === 'detection') part('score').value = info.thresholds.score;
  if (state.picture) await run();
  else say('Ready: choose a picture.');
}

async function choosePicture(file) {
  say(`Reading ${file.name} …`);
  state.picture = await readPicture(file);
  state.name = file.name;
  if (!state.model) throw new Error('No model is loaded: choose another');
  await run();
}

async function run() {
  say('Predicting …');
  const start = performance.now();
  state.result = await predict(state.model, state.picture);
  const milliseconds = Math.round(performance.now() - start);
  show();
  say(`${state.name}: ${milliseconds} ms`);
}

/** Show the result with the score of the slider. */
function show() {
  const minimum = Number(part('score').value);
  part('minimum').textContent = minimum.toFixed(2);
  if (!state.result) return;
  const { info } = state.model;
  document.querySelector('.result').hidden = false;
  draw(part('drawing'), state.picture, info, state.result, minimum);
  const entries = asJson(info, state.result, minimum);
  const { height, width } = state.result.size;
  const image = { id: 0, file_name: state.name, width, height };
  const content = { task: info.task, classes: info.classes, images: [image] };
  const results = { ...content, results: entries, failed: [] };
  part('json').textContent = JSON.stringify(results);
  const summary = summaryOf(info, entries);
  part('summary').textContent = summary;
  part('drawing').setAttribute('aria-label', `${state.name}: ${summary}`);
  part('legend').replaceChildren(...legendOf(info, state.result));
}

function summaryOf(info, entries) {
  if (info.task === 'detection') {
    return `${entries.length} ${entries.length === 1 ? 'object' : 'objects'}`;
  }
  const names = entries.map(({ name }) => name).join(', ');
  return info.task === 'segmentation' ? names : `${names} ${entries[0].score.toFixed(3)}`;
}

function legendOf(info, result) {
  if (info.task === 'segmentation') {
    return sharesOf(result.labels).map(({ label, share }) =>
      legendItem(info, label, `${(share * 100).toFixed(1)} %`, true),
    );
  }
  if (info.task === 'detection') return [];
  return result.scores
    .map((score, label) => ({ score, label }))
    .sort((a, b) => b.score - a.score)
    .slice(0, BEST)
    .map(({ score, label }) => legendItem(info, label, score.toFixed(3), false));
}

function legendItem(info, label, value, coloured) {
  const item = document.createElement('li');
  if (coloured) {
    const patch = document.createElement('canvas');
    [patch.width, patch.height] = [1, 1];
    const context = patch.getContext('2d');
    context.fillStyle = `rgb(${colourOf(info, label)})`;
    context.fillRect(0, 0, 1, 1);
    item.append(patch);
  }
  item.append(`${nameOf(info, label)}: ${value}`);
  return item;
}

async function copyJson() {
  const text = part('json').textContent;
  try {
    await navigator.clipboard.writeText(text);
    say('The JSON is copied.');
  } catch {
    // The clipboard needs https or localhost, and permission.
    getSelection().selectAllChildren(part('json'));
    say('The JSON is selected: press Ctrl+C.');
  }
}

function listen() {
  part('model').addEventListener('change', ({ target }) =>
    enqueue(() => chooseModel(target.value)),
  );
  part('file').addEventListener('change', ({ target }) => {
    const [file] = target.files;
    if (file) enqueue(() => choosePicture(file));
  });
  part('score').addEventListener('input', show);
  part('copy').addEventListener('click', copyJson);
  addEventListener('resize', show);
  const { body } = document;
  body.addEventListener('dragover', (event) => {
    event.preventDefault();
    body.classList.add('dragging');
  });
  body.addEventListener('dragleave', () => body.classList.remove('dragging'));
  body.addEventListener('drop', (event) => {
    event.preventDefault();
    body.classList.remove('dragging');
    const [file] = event.dataTransfer.files;
    if (file) enqueue(() => choosePicture(file));
    else fail('No file was dropped: drop a picture from a folder.');
  });
}

async function start() {
  const models = await (await fetchFile('models.json')).json();
  part('model').replaceChildren(
    ...models.map(({ folder, title }) => new Option(title, folder)),
  );
  listen();
  part('model').disabled = false;
  part('file').disabled = false;
  await chooseModel(models[0].folder);
}

enqueue(start);
