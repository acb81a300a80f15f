// An image with its maps: side by side, with a slider, or as points; zoomed together, and read under the pointer.

const TILES = { image: "Image", truth: "Truth", prediction: "Prediction", error: "Relative error" };
const MOST_ZOOM = 32;

function signed(value, digits) {
  return (value > 0 ? "+" : value < 0 ? "−" : "") + Math.abs(value).toFixed(digits);
}

function digitsOf(step) {
  return step > 0 ? Math.max(0, Math.min(6, Math.ceil(-Math.log10(step)))) : 3;
}

function valueText(value, step, unit) {
  return value === value ? `${value.toFixed(digitsOf(step))} ${unit}`.trim() : "none";
}

/** The most by which a stored value is off. */
function precisionText({ truth, prediction }, unit) {
  const step = Math.max(truth, prediction);
  return unit ? `±${Number((500 * step).toPrecision(2))} mm` : `±${Number((step / 2).toPrecision(2))}`;
}

/** What the caption gives beside the name of the image. */
function describeImage(image) {
  const shown = ["abs_rel", "rmse", "delta1", "affine_error", "ordinal_error", "valid_share", "scale", "shift"];
  const numbers = content.columns
    .map(({ name }, i) => [name, image.values[i]])
    .filter(([name, value]) => value !== null && shown.includes(name))
    .map(([name, value]) => `${name} ${valueOf(name, value)}`);
  const kind = { metres: "", up_to_scale: "depth up to scale", disparity: "disparity up to scale and shift" }[image.kind];
  const status = image.status === "scored" ? "" : `not scored: ${image.status.replaceAll("_", " ")}`;
  return [sceneText(image), kind && `truth: ${kind}`, ...numbers, status].filter(Boolean).join(" · ");
}

/** The <figure> of an image; its maps are decoded first. */
async function buildFigure(index) {
  const image = content.images[index];
  const maps = await decodeImage(index, true);
  const painted = paintImage(image, maps);
  const view = { zoom: 1, x: 0.5, y: 0.5 };
  let mode = "side", spot = null, split = 0.5, surfaces = [];

  const caption = element("figcaption", {}, element("b", { textContent: image.id }), ` · ${describeImage(image)}`);
  if (content.ways.length > 1) caption.append(element("br"), content.ways[image.shownAs]);
  const body = element("div");
  const read = element("output", { className: "read" });
  read.setAttribute("aria-live", "polite");
  const modes = { side: "Side by side", slider: "Slider", points: "Point cloud" };
  const modeButtons = Object.entries(modes).map(([key, label]) => {
    const button = element("button", { type: "button", textContent: label });
    button.addEventListener("click", () => show(key));
    return button;
  });
  const zoomButtons = [["−", "Zoom out", () => zoom(1 / 1.5)], ["+", "Zoom in", () => zoom(1.5)], ["Fit", "Whole image", () => zoom(0)]].map(
    ([text, label, act]) => {
      const button = element("button", { type: "button", textContent: text, title: label, ariaLabel: label });
      button.addEventListener("click", act);
      return button;
    },
  );
  const tools = element("div", { className: "tools", role: "group", ariaLabel: "View" }, ...modeButtons, ...zoomButtons);
  const figure = element("figure", { className: "picture" }, caption, tools, body, scales(), read);
  figure.dataset.image = index;

  function scales() {
    const colours = image.kind === "disparity" ? disparityColours : depthColours;
    const unit = image.unit && ` ${image.unit}`;
    const [low, high] = image.scale;
    const write = (value) => Number(value.toPrecision(4)) + unit;
    const limit = 100 * content.errorLimit;
    const what = image.kind === "disparity" ? "blue: too far, red: too near" : "blue: too near, red: too far";
    return element(
      "div",
      { className: "scales" },
      keys(),
      scaleBar("Truth and prediction", colours, low, high, 8, write),
      element("div", {}, scaleBar("Relative error", errorColours, -limit, limit, 5, (value) => `${signed(value, 0)} %`), element("div", { className: "keys", textContent: `${what}; ends: ≥ ${limit} %` })),
    );
  }

  function keys() {
    const holes = maps.truth.some(Number.isNaN) ? "grey:\u00a0no\u00a0truth" : "";
    const dots = dotRadius(maps.truth, maps.width) ? "points drawn larger than they are" : "";
    const broken = maps.prediction.some(Number.isNaN) ? "green: not finite" : "";
    const crop = image.crop ? "dashed frame: the scored part" : "";
    const reduced = maps.height * maps.width < image.height * image.width ? ` of ${image.width} × ${image.height}` : "";
    const stored = `${maps.width} × ${maps.height}${reduced} pixels, ${precisionText(maps.steps, image.unit)}`;
    return element("div", { className: "keys", textContent: [stored, crop, holes, dots, broken].filter(Boolean).join("; ") });
  }

  function show(chosen) {
    mode = chosen;
    modeButtons.forEach((button, i) => button.setAttribute("aria-pressed", Object.keys(modes)[i] === mode));
    zoomButtons.forEach((button) => (button.hidden = mode === "points"));
    surfaces = [];
    if (mode === "points") body.replaceChildren(pointCloud(image, maps));
    else if (mode === "slider") body.replaceChildren(...sliderParts());
    else body.replaceChildren(element("div", { className: "tiles" }, ...Object.keys(TILES).map((key) => tile([key], TILES[key]))));
    draw();
  }

  function sliderParts() {
    const range = element("input", { type: "range", min: 0, max: 100, step: 1, value: 100 * split, ariaLabel: "Share of the picture that shows the truth, in percent" });
    range.addEventListener("input", () => {
      split = Number(range.value) / 100;
      draw();
    });
    const wide = tile(["truth", "prediction"], "Left of the line the truth, right of it the prediction");
    wide.classList.add("handle");
    return [element("label", { className: "tools" }, "truth", range, "prediction"), element("div", { className: "tiles wide" }, wide)];
  }

  function tile(layers, label) {
    const canvas = element("canvas", { tabIndex: 0 });
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${label} of ${image.id}. Arrow keys read values, plus and minus zoom.`);
    surfaces.push({ canvas, layers });
    const canvasSpot = (event) => {
      const box = canvas.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    };
    let pinch = 0;
    const touches = new Map();
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      touches.set(event.pointerId, [event.clientX, event.clientY]);
      pinch = 0;
      if (layers.length > 1) moveSplit(canvasSpot(event)[0]);
    });
    canvas.addEventListener("pointermove", (event) => {
      const [x, y] = canvasSpot(event);
      if (touches.has(event.pointerId)) touches.set(event.pointerId, [event.clientX, event.clientY]);
      if (touches.size === 2) {
        const [[ax, ay], [bx, by]] = [...touches.values()];
        const apart = Math.hypot(ax - bx, ay - by);
        if (pinch) zoom(apart / pinch, x, y);
        pinch = apart;
      } else if (event.buttons & 1 && layers.length > 1) moveSplit(x);
      else if (event.buttons & 1 && view.zoom > 1) pan(-event.movementX / canvas.clientWidth, -event.movementY / canvas.clientHeight);
      point(x, y);
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => touches.delete(event.pointerId));
    canvas.addEventListener("pointerleave", () => readAt(null));
    canvas.addEventListener("dblclick", (event) => zoom(view.zoom > 1 ? 0 : 3, ...canvasSpot(event)));
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return; // the wheel alone scrolls the page; a trackpad's pinch comes with ctrl
      event.preventDefault();
      zoom(Math.exp(-event.deltaY / 100), ...canvasSpot(event));
    }, { passive: false });
    canvas.addEventListener("keydown", keyed);
    return element("div", { className: "tile" }, canvas, element("span", { textContent: label }));
  }

  function keyed(event) {
    const step = event.shiftKey ? 10 : 1;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (moves[event.key]) {
      const [x, y] = spot ?? [maps.width >> 1, maps.height >> 1];
      const [dx, dy] = spot ? moves[event.key] : [0, 0];
      readAt([Math.max(0, Math.min(maps.width - 1, x + dx)), Math.max(0, Math.min(maps.height - 1, y + dy))], true);
    } else if (event.key === "+" || event.key === "=") zoom(1.5);
    else if (event.key === "-") zoom(1 / 1.5);
    else if (event.key === "0") zoom(0);
    else return;
    event.preventDefault();
  }

  function corner() {
    const span = 1 / view.zoom;
    view.x = Math.max(span / 2, Math.min(1 - span / 2, view.x));
    view.y = Math.max(span / 2, Math.min(1 - span / 2, view.y));
    return [view.x - span / 2, view.y - span / 2, span];
  }

  /** Zoom by a factor about a place of the canvas, by default its middle or what is read; 0 shows the whole. */
  function zoom(factor, x, y) {
    const [left, top, span] = corner();
    if (x === undefined && spot) [x, y] = [((spot[0] + 0.5) / maps.width - left) / span, ((spot[1] + 0.5) / maps.height - top) / span];
    [x, y] = [x ?? 0.5, y ?? 0.5];
    const [u, v] = [left + x * span, top + y * span];
    view.zoom = factor ? Math.max(1, Math.min(MOST_ZOOM, view.zoom * factor)) : 1;
    view.x = u + (0.5 - x) / view.zoom;
    view.y = v + (0.5 - y) / view.zoom;
    draw();
  }

  function pan(x, y) {
    view.x += x / view.zoom;
    view.y += y / view.zoom;
    draw();
  }

  function moveSplit(x) {
    const [left, , span] = corner();
    split = Math.max(0, Math.min(1, left + x * span));
    body.querySelector("input[type=range]").value = 100 * split;
    draw();
  }

  function point(x, y) {
    const [left, top, span] = corner();
    const column = Math.floor((left + x * span) * maps.width), row = Math.floor((top + y * span) * maps.height);
    readAt(column >= 0 && row >= 0 && column < maps.width && row < maps.height ? [column, row] : null);
  }

  /** Read the values at [column, row] of the maps, and bring the place into view where keys led there. */
  function readAt(place, follow = false) {
    spot = place;
    if (!spot) read.textContent = "";
    else {
      const [column, row] = spot;
      const i = row * maps.width + column;
      const [x, y] = [Math.floor(((column + 0.5) * image.width) / maps.width), Math.floor(((row + 0.5) * image.height) / maps.height)];
      const parts = [`x ${x}, y ${y}`];
      parts.push(`truth ${valueText(maps.truth[i], maps.steps.truth, image.unit)}`);
      parts.push(`prediction ${valueText(maps.prediction[i], maps.steps.prediction, image.unit)}`);
      if (maps.error[i] === maps.error[i]) parts.push(`error ${signed(100 * maps.error[i], 2)} %`);
      read.textContent = parts.join(" · ");
      const [left, top, span] = corner();
      const [u, v] = [(column + 0.5) / maps.width, (row + 0.5) / maps.height];
      if (follow && (u < left || u > left + span || v < top || v > top + span)) [view.x, view.y] = [u, v];
    }
    draw();
  }

  function draw() {
    const [left, top, span] = corner();
    for (const { canvas, layers } of surfaces) {
      const width = Math.round(canvas.clientWidth * devicePixelRatio);
      if (!width) continue;
      const height = Math.max(1, Math.round((width * image.height) / image.width));
      if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
      canvas.style.touchAction = view.zoom > 1 ? "none" : "pan-x pan-y";
      const context = canvas.getContext("2d");
      const line = ((split - left) / span) * width;
      layers.forEach((layer, number) => {
        const source = painted[layer];
        const [w, h] = [source.naturalWidth ?? source.width, source.naturalHeight ?? source.height];
        context.save();
        if (number > 0) {
          context.beginPath();
          context.rect(line, 0, width, height);
          context.clip();
        }
        context.imageSmoothingEnabled = layer === "image" || w * span > width;
        context.drawImage(source, left * w, top * h, span * w, span * h, 0, 0, width, height);
        context.restore();
      });
      if (image.crop) {
        const [cropTop, bottom, cropLeft, right] = image.crop;
        const at = (share, start, size) => ((share - start) / span) * size;
        stroke(context, [6, 4], () =>
          context.rect(at(cropLeft, left, width), at(cropTop, top, height), ((right - cropLeft) / span) * width, ((bottom - cropTop) / span) * height),
        );
      }
      if (layers.length > 1) stroke(context, [], () => { context.moveTo(line, 0); context.lineTo(line, height); });
      if (spot) {
        const x = (((spot[0] + 0.5) / maps.width - left) / span) * width, y = (((spot[1] + 0.5) / maps.height - top) / span) * height;
        stroke(context, [], () => { context.moveTo(x - 9, y); context.lineTo(x - 3, y); context.moveTo(x + 3, y); context.lineTo(x + 9, y); context.moveTo(x, y - 9); context.lineTo(x, y - 3); context.moveTo(x, y + 3); context.lineTo(x, y + 9); });
      }
    }
  }

  /** Black with a white border, to be seen on any colour. */
  function stroke(context, dashes, path) {
    for (const [colour, width] of [["#fff", 3], ["#000", 1.2]]) {
      context.beginPath();
      context.setLineDash(dashes);
      context.strokeStyle = colour;
      context.lineWidth = width * Math.min(2, devicePixelRatio);
      path();
      context.stroke();
    }
    context.setLineDash([]);
  }

  new ResizeObserver(draw).observe(body);
  show("side");
  return figure;
}
