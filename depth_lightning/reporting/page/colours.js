// Numbers to colours, as in the panels of a run.

function palette(hex) {
  const colours = new Uint8Array(hex.length / 2);
  for (let i = 0; i < colours.length; i++) colours[i] = parseInt(hex.substr(2 * i, 2), 16);
  return colours;
}

function reversed(colours) {
  const found = new Uint8Array(colours.length);
  for (let i = 0; i < colours.length; i += 3) found.set(colours.subarray(i, i + 3), colours.length - 3 - i);
  return found;
}

const depthColours = palette(content.colours.depth);
const disparityColours = reversed(depthColours); // large is near
const errorColours = palette(content.colours.error);

/** A canvas of height × width values between low and high; missing(i) is the colour where pixel i has none. */
function paint(values, height, width, colours, low, high, missing) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  const last = colours.length / 3 - 1;
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    let red, green, blue;
    if (value === value) {
      const entry = 3 * Math.round(Math.min(1, Math.max(0, (value - low) / (high - low))) * last);
      red = colours[entry];
      green = colours[entry + 1];
      blue = colours[entry + 2];
    } else [red, green, blue] = missing(i);
    pixels.data[4 * i] = red;
    pixels.data[4 * i + 1] = green;
    pixels.data[4 * i + 2] = blue;
    pixels.data[4 * i + 3] = 255;
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

/** By how much to grow the points of a truth with so few that single pixels could not be seen. */
function dotRadius(truth, width) {
  const known = truth.reduce((count, value) => count + (value === value), 0);
  return known < 0.3 * truth.length ? Math.round(width / 500) : 0;
}

/** Values grown into the holes around them. */
function asDots(values, height, width, radius) {
  if (!radius) return values;
  const grown = values.slice();
  values.forEach((value, i) => {
    if (value !== value) return;
    const column = i % width, row = (i - column) / width;
    for (let y = Math.max(0, row - radius); y <= Math.min(height - 1, row + radius); y++)
      for (let x = Math.max(0, column - radius); x <= Math.min(width - 1, column + radius); x++)
        if (values[y * width + x] !== values[y * width + x]) grown[y * width + x] = value;
  });
  return grown;
}

/** The four pictures of a decoded image. */
function paintImage(image, maps) {
  const { height, width, prediction } = maps;
  const radius = dotRadius(maps.truth, width);
  const [truth, error] = [maps.truth, maps.error].map((values) => asDots(values, height, width, radius));
  const colours = image.kind === "disparity" ? disparityColours : depthColours;
  const { hole, notFinite } = content.colours;
  const limit = content.errorLimit;
  return {
    image: maps.photo,
    truth: paint(truth, height, width, colours, ...image.scale, () => hole),
    prediction: paint(prediction, height, width, colours, ...image.scale, () => notFinite),
    error: paint(error, height, width, errorColours, -limit, limit, (i) => (maps.truth[i] > 0 ? notFinite : hole)),
  };
}

/** Multiples of 1, 2 or 5 times a power of ten from low to high, about as many as `most`. */
function roundTicks(low, high, most) {
  const least = (high - low) / (most - 1);
  const power = 10 ** Math.floor(Math.log10(least));
  const step = [1, 2, 5, 10, 20].map((factor) => factor * power).find((candidate) => candidate >= least);
  const ticks = [];
  for (let n = Math.ceil(low / step - 1e-6); n <= Math.floor(high / step + 1e-6); n++) ticks.push(n * step);
  return ticks;
}

/** A bar of the colours with the values they stand for. */
function scaleBar(label, colours, low, high, most, write) {
  const bar = element("div", { className: "scale" });
  const canvas = element("canvas", { width: 256, height: 1, role: "img", ariaLabel: `${label}: ${write(low)} to ${write(high)}` });
  const ramp = Float32Array.from({ length: 256 }, (_, i) => i / 255);
  canvas.getContext("2d").drawImage(paint(ramp, 1, 256, colours, 0, 1), 0, 0);
  const ticks = element("div", { className: "ticks" });
  for (const tick of roundTicks(low, high, most)) {
    const share = (tick - low) / (high - low);
    const mark = element("span", { textContent: write(tick), className: share < 0.04 ? "first" : share > 0.96 ? "last" : "" });
    mark.style.left = `${100 * share}%`;
    ticks.append(mark);
  }
  bar.append(canvas, ticks);
  return bar;
}

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}
