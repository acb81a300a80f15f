// The page itself: sections, theme, the large pictures, and the viewer of any image.

function buildNavigation() {
  const nav = document.querySelector("nav");
  for (const section of document.querySelectorAll("main > section")) {
    nav.append(element("a", { href: `#${section.id}`, textContent: section.querySelector("h2").textContent }));
  }
}

function buildTheme() {
  const button = document.getElementById("theme");
  const names = { "": "system", light: "light", dark: "dark" };
  const set = (theme) => {
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    button.textContent = `Theme: ${names[theme]}`;
  };
  button.addEventListener("click", () => {
    const order = Object.keys(names);
    const next = order[(order.indexOf(document.documentElement.dataset.theme ?? "") + 1) % order.length];
    set(next);
    try {
      localStorage.setItem("depth-lightning-theme", next);
    } catch {} // a page from a file may have no storage
  });
  try {
    const kept = localStorage.getItem("depth-lightning-theme");
    if (kept in names) set(kept);
  } catch {}
}

function buildGroups() {
  const near = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      buildFigure(Number(target.dataset.image)).then((figure) => target.replaceWith(figure));
    }
  }, { rootMargin: "400px" });
  const pictures = document.getElementById("pictures");
  if (content.ways.length === 1) pictures.querySelector(".note").prepend(`${content.ways[0]} `);
  for (const { title, images } of content.groups) {
    const group = element("section", {}, element("h3", { textContent: title }));
    for (const index of images) {
      const { id, width, height } = content.images[index];
      const tiles = element("div", { className: "tiles" });
      for (let i = 0; i < 4; i++) tiles.append(element("div"));
      for (const tile of tiles.children) tile.style.aspectRatio = `${width} / ${height}`;
      const place = element("figure", { className: "picture empty" }, element("figcaption", { textContent: id }), tiles);
      place.dataset.image = index;
      group.append(place);
      near.observe(place);
    }
    pictures.append(group);
  }
}

function buildMore() {
  for (const button of document.querySelectorAll("button.more")) {
    const rest = button.parentElement.querySelector("tbody[hidden]");
    const label = button.textContent;
    button.addEventListener("click", () => {
      rest.hidden = !rest.hidden;
      button.setAttribute("aria-expanded", !rest.hidden);
      button.textContent = rest.hidden ? label : "Show fewer";
    });
  }
}

const viewer = document.getElementById("viewer");
let viewed = 0;

async function openViewer(index) {
  viewed = index;
  const place = shownRows.indexOf(index);
  document.getElementById("viewer-place").textContent = `${place + 1} of ${shownRows.length}`;
  if (!viewer.open) viewer.showModal();
  const figure = await buildFigure(index);
  if (viewed === index) document.getElementById("viewer-figure").replaceChildren(figure);
}

function buildViewer() {
  const go = (steps) => {
    const place = shownRows.indexOf(viewed) + steps;
    if (place >= 0 && place < shownRows.length) openViewer(shownRows[place]);
  };
  for (const button of viewer.querySelectorAll("[data-go]")) button.addEventListener("click", () => go(Number(button.dataset.go)));
  viewer.querySelector("[data-close]").addEventListener("click", () => viewer.close());
  viewer.addEventListener("keydown", (event) => {
    if (event.key === "PageDown") go(1);
    else if (event.key === "PageUp") go(-1);
    else return;
    event.preventDefault();
  });
  viewer.addEventListener("close", () => document.getElementById("viewer-figure").replaceChildren());
}

buildTheme();
buildNavigation();
buildMore();
buildViewer();
buildTable(openViewer);
buildGroups();
performance.mark("ready");
