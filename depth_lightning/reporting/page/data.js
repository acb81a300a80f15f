"use strict";
// The images of the page; their maps are decoded when they come into view.

const content = JSON.parse(document.getElementById("content").textContent);

const wholePage = new Promise((done) => {
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", done, { once: true });
  else done();
});

/** The three parts stored under a key; the browser may still be reading the page that far. */
async function stored(key) {
  if (!document.getElementById(key)?.nextSibling) await wholePage;
  return document.getElementById(key).textContent.split(",");
}

function bytes(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

async function inflate(packed) {
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Float32Array of a quantised map, NaN where it has no value; maps.py describes the format. */
async function decodeMap(base64, [low, step], count) {
  const planes = await inflate(bytes(base64));
  const values = new Float32Array(count);
  for (let i = 0, code = 0; i < count; i++) {
    const folded = (planes[i] << 8) | planes[count + i];
    code += folded & 1 ? -(folded + 1) / 2 : folded / 2;
    values[i] = code ? low + (code - 1) * step : NaN;
  }
  return values;
}

async function decodePhoto(base64) {
  const photo = new Image();
  photo.src = `data:image/webp;base64,${base64}`;
  await photo.decode();
  return photo;
}

/** {height, width, photo, truth, prediction, error} of an image, large where it is stored so and asked for. */
async function decodeImage(index, large) {
  const image = content.images[index];
  const size = large && image.large ? "large" : "small";
  const { height, width, truth: truthSteps, prediction: predictionSteps } = image[size];
  const [photoText, truthText, predictionText] = await stored(size + index);
  const [photo, truth, prediction] = await Promise.all([
    decodePhoto(photoText),
    decodeMap(truthText, truthSteps, height * width),
    decodeMap(predictionText, predictionSteps, height * width),
  ]);
  // Where a truth is not positive, as the disparity of the sky is not, a relative error means nothing.
  const error = truth.map((value, i) => (value > 0 ? (prediction[i] - value) / value : NaN));
  return { height, width, photo, truth, prediction, error, steps: { truth: truthSteps[1], prediction: predictionSteps[1] } };
}
