"use strict";
(() => {
  const photos = Array.from(document.querySelectorAll("script.photo"), (one) => JSON.parse(one.textContent));
  const images = new Map(
    Array.from(document.querySelectorAll("script.image"), (one) => [Number(one.dataset.photo), one]),
  );
  const byId = (id) => document.getElementById(id);
  const [viewer, stage, sheet] = [byId("viewer"), byId("stage"), byId("sheet")];
  const view = { photo: 0, x: 0, y: 0, scale: 1 };
  const SVG = "http://www.w3.org/2000/svg";
  const PRINTED = 60;

  function shape(parent, name, attributes, text) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text) made.textContent = text;
    parent.append(made);
    return made;
  }

  function overlay(photo) {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${photo.width} ${photo.height}`);
    svg.classList.add("over");
    const blocks = shape(svg, "g", { class: "blocks" });
    for (const [x, y, side, prob, kind] of photo.blocks) {
      shape(blocks, "rect", { x, y, width: side, height: side, class: kind });
      shape(blocks, "text", { x, y, dx: "0.4em", dy: "1.2em" }, `${prob} %`);
    }
    const cracks = shape(svg, "g", { class: "cracks" });
    photo.cracks.forEach((lines, number) => {
      const group = shape(cracks, "g", { "data-crack": number });
      for (const line of lines) shape(group, "polyline", { points: line.join(" ") });
    });
    return svg;
  }

  function picture(number) {
    const image = document.createElement("img");
    const card = document.querySelector(`.card[data-photo="${number}"] img`);
    image.src = images.has(number) ? `data:image/jpeg;base64,${images.get(number).textContent}` : card.src;
    image.alt = photos[number].name;
    image.draggable = false;
    return image;
  }

  function place() {
    sheet.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`;
    sheet.style.setProperty("--unit", 1 / view.scale);  // what is one pixel of the screen, in pixels of the photo
    sheet.classList.toggle("near", view.scale > 2);
    byId("zoom").textContent = `${Math.round(view.scale * 100)} %`;
  }

  function look(x, y, width, height) {
    view.scale = Math.min(16, 0.96 * Math.min(stage.clientWidth / width, stage.clientHeight / height));
    view.x = stage.clientWidth / 2 - (x + width / 2) * view.scale;
    view.y = stage.clientHeight / 2 - (y + height / 2) * view.scale;
    place();
  }

  function zoom(factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
    const scale = Math.min(32, Math.max(0.02, view.scale * factor));
    view.x = x - ((x - view.x) * scale) / view.scale;
    view.y = y - ((y - view.y) * scale) / view.scale;
    view.scale = scale;
    place();
  }

  function fit() {
    look(0, 0, photos[view.photo].width, photos[view.photo].height);
  }

  function toggleLayers() {
    const svg = sheet.querySelector("svg");
    svg.classList.toggle("no-blocks", !byId("show-blocks").checked);
    svg.classList.toggle("no-cracks", !byId("show-cracks").checked);
  }

  function open(number, crack) {
    const photo = photos[number];
    view.photo = number;
    sheet.style.width = `${photo.width}px`;
    sheet.style.height = `${photo.height}px`;
    sheet.replaceChildren(picture(number), overlay(photo));
    byId("viewer-name").textContent = `${photo.name}: ${photo.verdict}`;
    if (!viewer.open) viewer.showModal();
    toggleLayers();
    if (crack === undefined) return fit();
    sheet.querySelector(`[data-crack="${crack}"]`).classList.add("chosen");
    const [x0, y0, x1, y1] = photo.boxes[crack];
    const margin = 0.25 * Math.max(x1 - x0, y1 - y0, 64);
    return look(x0 - margin, y0 - margin, x1 - x0 + 2 * margin, y1 - y0 + 2 * margin);
  }

  function step(by) {
    const shown = Array.from(document.querySelectorAll(".card:not([hidden])"), (card) => Number(card.dataset.photo));
    const at = shown.indexOf(view.photo);
    open(shown[(at + by + shown.length) % shown.length]);
  }

  document.querySelectorAll(".card").forEach((card) => {
    card.addEventListener("click", () => open(Number(card.dataset.photo)));
  });
  document.querySelectorAll("[data-show]").forEach((button) => {
    button.addEventListener("click", () => {
      document.querySelectorAll("[data-show]").forEach((one) => one.setAttribute("aria-pressed", one === button));
      document.querySelectorAll(".card").forEach((card) => {
        card.hidden = button.dataset.show !== "all" && card.dataset.verdict !== button.dataset.show;
      });
    });
  });

  const table = byId("crack-table");
  if (table) {
    const body = table.tBodies[0];
    body.addEventListener("click", (event) => {
      const row = event.target.closest(".thumb") && event.target.closest("tr");
      if (row) open(Number(row.dataset.photo), Number(row.dataset.crack));
    });
    table.querySelectorAll("[data-sort]").forEach((button) => {
      button.addEventListener("click", () => {
        const key = button.dataset.sort;
        const heading = button.closest("th");
        const descending = heading.getAttribute("aria-sort") !== "descending";
        table.querySelectorAll("[aria-sort]").forEach((one) => one.setAttribute("aria-sort", "none"));
        heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
        const attribute = `data-${key.replaceAll("_", "-")}`;
        const value = (row) =>
          key === "photo" ? row.querySelector(".path").textContent : Number(row.getAttribute(attribute) || "-1");
        const sign = descending ? -1 : 1;
        const order = (a, b) => (value(a) < value(b) ? -sign : value(a) > value(b) ? sign : 0);
        body.append(...Array.from(body.rows).sort(order));
      });
    });
  }

  byId("show-blocks").addEventListener("change", toggleLayers);
  byId("show-cracks").addEventListener("change", toggleLayers);
  byId("zoom-in").addEventListener("click", () => zoom(1.5));
  byId("zoom-out").addEventListener("click", () => zoom(1 / 1.5));
  byId("fit").addEventListener("click", fit);
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("close").addEventListener("click", () => viewer.close());
  window.addEventListener("resize", () => viewer.open && fit());

  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    const frame = stage.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY / 400), event.clientX - frame.left, event.clientY - frame.top);
  }, { passive: false });
  const held = new Map();
  const spread = () => {
    const [a, b] = held.values();
    return Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
  };
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    held.set(event.pointerId, event);
    stage.classList.add("held");
  });
  stage.addEventListener("pointermove", (event) => {
    const before = held.get(event.pointerId);
    if (!before) return;
    if (held.size === 2) {
      const old = spread();
      held.set(event.pointerId, event);
      const frame = stage.getBoundingClientRect();
      const [a, b] = held.values();
      zoom(spread() / old, (a.clientX + b.clientX) / 2 - frame.left, (a.clientY + b.clientY) / 2 - frame.top);
      return;
    }
    view.x += event.clientX - before.clientX;
    view.y += event.clientY - before.clientY;
    held.set(event.pointerId, event);
    place();
  });
  for (const name of ["pointerup", "pointercancel"]) {
    stage.addEventListener(name, (event) => {
      held.delete(event.pointerId);
      stage.classList.toggle("held", held.size > 0);
    });
  }
  viewer.addEventListener("keydown", (event) => {
    const keys = { "+": () => zoom(1.5), "-": () => zoom(1 / 1.5), 0: fit, ArrowLeft: () => step(-1), ArrowRight: () => step(1) };
    if (keys[event.key]) {
      event.preventDefault();
      keys[event.key]();
    }
  });

  window.addEventListener("beforeprint", () => {
    const found = photos.map((_, number) => number).filter((number) => photos[number].verdict === "crack");
    byId("print").replaceChildren(...found.slice(0, PRINTED).map((number) => {
      const figure = document.createElement("figure");
      const frame = document.createElement("div");
      frame.className = "sheet";
      frame.style.setProperty("--unit", photos[number].width / 900);
      frame.append(picture(number), overlay(photos[number]));
      const caption = document.createElement("figcaption");
      caption.textContent = photos[number].name;
      figure.append(frame, caption);
      return figure;
    }));
  });
  window.addEventListener("afterprint", () => byId("print").replaceChildren());
})();
