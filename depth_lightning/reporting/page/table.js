// All images in a table: sorted by a click on a column, filtered by name and by any metric.

const rows = [];
const sorting = { column: -1, descending: false };
let shownRows = [];

/** A value of a column as text: metrics with four decimals, as in the table of results. */
function valueOf(name, value) {
  if (value === null) return "–";
  return name === "scale" || name === "shift" ? String(Number(value.toPrecision(4))) : value.toFixed(4);
}

/** The scene of an image, unless its name holds it already. */
function sceneText({ id, scene }) {
  return id.includes(scene) ? "" : scene;
}

/** Fill the table; open(index) shows an image. */
function buildTable(open) {
  const head = document.querySelector("#list thead tr");
  ["name", ...content.columns.map(({ label }) => label)].forEach((label, i) => {
    const button = element("button", { type: "button", textContent: label });
    button.addEventListener("click", () => sortBy(i - 1));
    head.append(element("th", { scope: "col", className: i ? "" : "name" }, button));
  });
  head.firstChild.append(element("small", { textContent: "image, truth, prediction, error" }));

  const visible = new IntersectionObserver((entries) => {
    for (const entry of entries) entry.isIntersecting ? drawStrip(entry.target, open) : entry.target.replaceChildren();
  }, { rootMargin: "300px" });
  const body = document.querySelector("#list tbody");
  content.images.forEach((image, index) => {
    const strip = element("div", { className: "strip" });
    const { width, height } = stripLayout(image);
    strip.style = `aspect-ratio: ${width} / ${height}; max-width: ${width}px`;
    strip.dataset.image = index;
    const name = element("button", { type: "button", textContent: image.id });
    name.addEventListener("click", () => open(index));
    const status = image.status === "scored" ? "" : image.status.replaceAll("_", " ");
    const small = element("small", { textContent: [sceneText(image), image.kind === "disparity" ? "disparity" : "", status].filter(Boolean).join(" · ") });
    const row = element("tr", {}, element("th", { scope: "row", className: "name" }, name, small, strip));
    image.values.forEach((value, i) => row.append(element("td", { textContent: valueOf(content.columns[i].name, value) })));
    row.dataset.image = index;
    rows.push(row);
    visible.observe(strip);
  });
  body.append(...rows);

  const metric = document.getElementById("filter-metric");
  content.columns.forEach(({ label }, i) => metric.append(element("option", { textContent: label, value: i })));
  const form = document.querySelector(".filters");
  form.addEventListener("input", refresh);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(refresh));
  // Worst first: by the first column, or by name where nothing was measured.
  content.columns.length ? sortBy(0, !content.columns[0].higherIsBetter) : sortBy(-1);
}

function sortBy(column, descending) {
  if (descending === undefined) {
    const worstFirst = column >= 0 && content.columns[column].higherIsBetter === false;
    descending = sorting.column === column ? !sorting.descending : worstFirst;
  }
  Object.assign(sorting, { column, descending });
  document.querySelectorAll("#list thead th").forEach((cell, i) => {
    if (i - 1 === column) cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
    else cell.removeAttribute("aria-sort");
  });
  refresh();
}

function refresh() {
  const text = document.getElementById("filter-text").value.toLowerCase();
  const metric = document.getElementById("filter-metric").value;
  const [from, to] = ["filter-from", "filter-to"].map((id) => document.getElementById(id).value);
  const passes = (image) => {
    if (!`${image.id}\n${image.scene}`.toLowerCase().includes(text)) return false;
    const value = metric === "" ? null : image.values[metric];
    if ((from !== "" || to !== "") && value === null) return false;
    return (from === "" || value >= Number(from)) && (to === "" || value <= Number(to));
  };
  const key = (index) => (sorting.column < 0 ? content.images[index].id : content.images[index].values[sorting.column]);
  const sign = sorting.descending ? -1 : 1;
  shownRows = content.images.map((_, index) => index).filter((index) => passes(content.images[index]));
  shownRows.sort((a, b) => {
    const [left, right] = [key(a), key(b)];
    if (left === null || right === null) return (left === null) - (right === null); // without a value: last
    return sign * (left < right ? -1 : left > right ? 1 : 0) || a - b;
  });
  document.querySelector("#list tbody").replaceChildren(...shownRows.map((index) => rows[index]));
  document.getElementById("filter-count").textContent = `${shownRows.length} of ${content.images.length} images`;
}

/** Where the four small pictures of a row lie: in one line, or two by two where they are wide. */
function stripLayout(image) {
  const across = image.width > 2 * image.height ? 2 : 4;
  const tileWidth = across === 2 ? 164 : Math.min(80, Math.round((60 * image.width) / image.height));
  const tileHeight = Math.max(1, Math.round((tileWidth * image.height) / image.width));
  const place = (i) => [(i % across) * (tileWidth + 4), Math.floor(i / across) * (tileHeight + 4)];
  const [left, top] = place(3);
  return { place, tileWidth, tileHeight, width: left + tileWidth, height: top + tileHeight };
}

/** The four small pictures of a row, decoded while it is near the window. */
async function drawStrip(cell, open) {
  if (cell.firstChild) return;
  const index = Number(cell.dataset.image), image = content.images[index];
  const { place, tileWidth, tileHeight, width, height } = stripLayout(image);
  const canvas = element("canvas", { width, height });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Image, truth, prediction and error of ${image.id}`);
  canvas.addEventListener("click", () => open(index));
  cell.append(canvas);
  const maps = await decodeImage(index, false);
  const context = canvas.getContext("2d");
  Object.values(paintImage(image, maps)).forEach((picture, i) => context.drawImage(picture, ...place(i), tileWidth, tileHeight));
}
