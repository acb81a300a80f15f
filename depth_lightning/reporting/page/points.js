// A point cloud to turn: WebGL without a library.

const POINTS_VERTEX = `
attribute vec3 place; attribute vec3 colour; varying vec3 shade;
uniform vec2 turn; uniform vec3 middle; uniform float distance, aspect, size;
void main() {
  vec3 p = place - middle;
  float sy = sin(turn.x), cy = cos(turn.x), sx = sin(turn.y), cx = cos(turn.y);
  p = vec3(cy * p.x + sy * p.z, p.y, cy * p.z - sy * p.x);
  p = vec3(p.x, cx * p.y - sx * p.z, cx * p.z + sx * p.y);
  float z = p.z + distance;
  gl_Position = vec4(1.73 * p.x, -1.73 * aspect * p.y, 0.001 * z * z / distance, z); // sees 60° across
  gl_PointSize = clamp(size / z, 1.0, 24.0);
  shade = colour;
}`;
const POINTS_FRAGMENT = `
precision mediump float; varying vec3 shade;
void main() { gl_FragColor = vec4(shade, 1.0); }`;

/** An element with the points of a decoded image and the controls for them; a text where there is no point cloud. */
function pointCloud(image, maps) {
  const root = element("div", { className: "points" });
  if (image.kind === "disparity") {
    root.append(element("p", { textContent: "No point cloud: disparity up to scale and shift has no shape in space." }));
    return root;
  }
  const canvas = element("canvas", { tabIndex: 0 });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Point cloud of ${image.id}: arrow keys turn it, + and − bring it nearer or farther`);
  const gl = canvas.getContext("webgl", { antialias: false, preserveDrawingBuffer: true });
  if (!gl) {
    root.append(element("p", { textContent: "The point cloud needs WebGL, which this browser lacks or has turned off." }));
    return root;
  }
  const what = element("select", { ariaLabel: "Points of" });
  for (const name of ["prediction", "truth", "both: truth blue, prediction orange"]) what.append(element("option", { textContent: name, value: name.split(":")[0] }));
  const across = element("input", { type: "number", min: 10, max: 150, value: 60, ariaLabel: "Horizontal field of view in degrees" });
  const tools = element("div", { className: "tools" }, what, element("label", {}, "horizontal field of view", across, "°"));
  const unit = image.unit ? "" : " Its size is unknown: the truth is up to scale.";
  root.append(tools, canvas, element("p", { textContent: `Drag or use the arrow keys to turn it; the wheel or + and − bring it nearer or farther. The field of view is assumed.${unit}` }));

  const program = gl.createProgram();
  for (const [type, source] of [[gl.VERTEX_SHADER, POINTS_VERTEX], [gl.FRAGMENT_SHADER, POINTS_FRAGMENT]]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  gl.useProgram(program);
  gl.enable(gl.DEPTH_TEST);
  const place = (name) => gl.getUniformLocation(program, name);
  for (const name of ["place", "colour"]) gl.enableVertexAttribArray(gl.getAttribLocation(program, name));
  const buffers = { place: gl.createBuffer(), colour: gl.createBuffer() };

  const photo = new OffscreenCanvas(maps.width, maps.height).getContext("2d");
  photo.drawImage(maps.photo, 0, 0, maps.width, maps.height);
  const rgb = photo.getImageData(0, 0, maps.width, maps.height).data;
  const view = { turn: [0.2, -0.1], nearer: 1 };
  let count = 0, middle = [0, 0, 1], reach = 1;

  function load() {
    const places = [], colours = [];
    const focal = maps.width / 2 / Math.tan((Math.min(150, Math.max(10, Number(across.value) || 60)) * Math.PI) / 360);
    const both = what.value === "both";
    for (const [name, tint] of [["truth", [0.25, 0.6, 1]], ["prediction", [1, 0.55, 0.15]]]) {
      if (!both && what.value !== name) continue;
      const values = maps[name];
      for (let i = 0; i < values.length; i++) {
        const z = values[i];
        if (!(z > 0)) continue;
        const column = i % maps.width, row = (i - column) / maps.width;
        places.push(((column - (maps.width - 1) / 2) / focal) * z, ((row - (maps.height - 1) / 2) / focal) * z, z);
        const grey = (rgb[4 * i] + rgb[4 * i + 1] + rgb[4 * i + 2]) / 765;
        if (both) colours.push(...tint.map((part) => part * (0.35 + 0.65 * grey)));
        else colours.push(rgb[4 * i] / 255, rgb[4 * i + 1] / 255, rgb[4 * i + 2] / 255);
      }
    }
    count = places.length / 3;
    const depths = Float32Array.from({ length: count }, (_, i) => places[3 * i + 2]).sort();
    const typical = depths[count >> 1] || 1;
    middle = [0, 0, typical];
    reach = 1.1 * typical; // from where the camera was, about
    for (const [name, values] of [["place", places], ["colour", colours]]) {
      gl.bindBuffer(gl.ARRAY_BUFFER, buffers[name]);
      gl.bufferData(gl.ARRAY_BUFFER, new Float32Array(values), gl.STATIC_DRAW);
      gl.vertexAttribPointer(gl.getAttribLocation(program, name), 3, gl.FLOAT, false, 0, 0);
    }
    canvas.dataset.points = count;
    draw();
  }

  function draw() {
    const width = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
    const height = Math.round(width * 0.62);
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    gl.viewport(0, 0, width, height);
    gl.clearColor(0.1, 0.11, 0.13, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.uniform2f(place("turn"), ...view.turn);
    gl.uniform3f(place("middle"), ...middle);
    gl.uniform1f(place("distance"), reach / view.nearer);
    gl.uniform1f(place("aspect"), width / height);
    gl.uniform1f(place("size"), (1.3 * reach * width) / maps.width);
    gl.drawArrays(gl.POINTS, 0, count);
    canvas.dataset.turn = view.turn.map((angle) => angle.toFixed(3)).join(" ");
  }

  function turn(x, y) {
    view.turn[0] += x;
    view.turn[1] = Math.max(-1.5, Math.min(1.5, view.turn[1] + y));
    draw();
  }

  function come(factor) {
    view.nearer = Math.max(0.2, Math.min(20, view.nearer * factor));
    draw();
  }

  canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
  canvas.addEventListener("pointermove", (event) => {
    if (event.buttons & 1) turn(event.movementX / 150, -event.movementY / 150);
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    come(Math.exp(-event.deltaY / 500));
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const turns = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };
    if (turns[event.key]) turn(...turns[event.key]);
    else if (event.key === "+" || event.key === "=") come(1.2);
    else if (event.key === "-") come(1 / 1.2);
    else return;
    event.preventDefault();
  });
  what.addEventListener("change", load);
  across.addEventListener("change", load);
  new ResizeObserver(draw).observe(canvas);
  load();
  return root;
}
