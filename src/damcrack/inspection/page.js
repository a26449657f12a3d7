(() => {
  const { settings, photos, findings } = desk;
  const byId = (id) => document.getElementById(id);
  const [viewer, stage, sheet] = [byId("viewer"), byId("stage"), byId("sheet")];
  const view = { photo: 0, finding: null, x: 0, y: 0, scale: 1 };
  const list = { shown: findings, status: "all", key: "", sign: -1, rows: 0 };
  const jpegs = (kind, key) => new Map(Array.from(document.querySelectorAll(`script.${kind}`), (one) => [one.dataset[key], one]));
  const crops = jpegs("crop", "place"), pictures = jpegs("picture", "photo");
  const jpeg = (base64) => `data:image/jpeg;base64,${base64}`;
  const SVG = "http://www.w3.org/2000/svg";
  const ROWS = 25, MORE_ROWS = 100;

  function element(parent, name, attributes = {}, text = "") {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    if (parent) parent.append(made);
    return made;
  }

  // Measures in words

  function measure(px, photo) {
    if (px === undefined) return "";
    const [value, unit] = photo.gsd ? [px * photo.gsd, "mm"] : [px, "px"];
    if (unit === "mm" && value >= 1000) return `${(value / 1000).toFixed(2)} m`;
    return `${value.toFixed(value < 100 ? 1 : 0)} ${unit}`;
  }

  function verdictOf(one) {
    const decision = one.decision;
    if (!decision) return "undecided";
    if (decision.carried) return `to be confirmed: ${decision.status}`;
    const parts = [decision.status, decision.class !== "crack" && decision.class, decision.severity, decision.note && "note"];
    return parts.filter(Boolean).join(", ");
  }

  // The overlay: pixels of the photo, the middle of pixel 0 at 0.5

  function shape(parent, name, attributes, text) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text) made.textContent = text;
    parent.append(made);
    return made;
  }

  function overlay(number) {
    const photo = photos[number];
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${photo.width} ${photo.height}`);
    svg.classList.add("over");
    const blocks = shape(svg, "g", { class: "blocks" });
    for (const [x, y, side, prob] of desk.drawing(number).blocks) {
      shape(blocks, "rect", { x, y, width: side, height: side });
      shape(blocks, "text", { x, y, dx: "0.4em", dy: "1.2em" }, `${prob} %`);
    }
    const found = shape(svg, "g", { class: "cracks" });
    for (const one of findings.filter((each) => each.photo === number)) {
      const group = shape(found, "g", { class: desk.status(one), "data-finding": one.place });
      const [x, y, x1, y1] = one.box;
      if (one.kind === "block") shape(group, "rect", { x, y, width: x1 - x, height: y1 - y });
      for (const line of one.lines) shape(group, "polyline", { points: line.join(" "), transform: "translate(0.5 0.5)" });
    }
    return svg;
  }

  // The photo whole, from inside the page or from the file beside it, and small behind it while that is not there.
  function sources(number) {
    const inside = pictures.get(String(number)), data = inside && jpeg(inside.textContent);
    if (data && inside.dataset.whole === "1") return { whole: data, small: jpeg(desk.drawing(number).thumbnail) };
    return { whole: photos[number].file, small: data || jpeg(desk.drawing(number).thumbnail) };
  }

  function picture(number) {
    const { whole, small } = sources(number);
    sheet.style.backgroundImage = `url(${small})`;
    const image = element(null, "img", { alt: photos[number].name, draggable: "false" });
    image.addEventListener("error", () => {
      image.remove();
      byId("place").textContent = `The sharp photo is not beside this page: ${photos[number].file}`;
    });
    image.src = whole;
    return image;
  }

  // The viewer

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

  const fit = () => look(0, 0, photos[view.photo].width, photos[view.photo].height);

  function toggleLayers() {
    sheet.classList.toggle("no-blocks", !byId("show-blocks").checked);
    sheet.classList.toggle("no-cracks", !byId("show-cracks").checked);
  }

  function openPhoto(number) {
    const photo = photos[number];
    if (!viewer.open) viewer.showModal();
    if (view.photo !== number || !sheet.firstChild) {
      sheet.style.width = `${photo.width}px`;
      sheet.style.height = `${photo.height}px`;
      byId("place").textContent = "";
      sheet.replaceChildren(picture(number), overlay(number));
    }
    view.photo = number;
    view.finding = null;
    byId("viewer-name").textContent = `${photo.name}: ${photo.verdict}`;
    toggleLayers();
    showPanel();
    fit();
    stage.focus();
  }

  function openFinding(one) {
    openPhoto(one.photo);
    view.finding = one;
    showPanel();
    const [x0, y0, x1, y1] = one.box;
    const margin = 0.25 * Math.max(x1 - x0, y1 - y0, 64);
    look(x0 - margin, y0 - margin, x1 - x0 + 2 * margin, y1 - y0 + 2 * margin);
  }

  function step(by) {
    const shown = Array.from(document.querySelectorAll(".card:not([hidden])"), (card) => Number(card.dataset.photo));
    if (shown.length) openPhoto(shown[(shown.indexOf(view.photo) + by + shown.length) % shown.length]);
  }

  function stepFinding(by) {
    const order = list.shown.length ? list.shown : findings;
    if (!order.length) return;
    const at = order.indexOf(view.finding);
    openFinding(at < 0 ? start(order) : order[(at + by + order.length) % order.length]);
  }

  function start(order = findings) {
    const here = viewer.open && order.find((one) => one.photo === view.photo);
    return here || order.find((one) => desk.status(one) === "undecided") || order[0];
  }

  function showPanel() {
    const one = view.finding;
    byId("panel").classList.toggle("empty", !one);
    sheet.querySelectorAll(".chosen").forEach((each) => each.classList.remove("chosen"));
    if (!one) {
      const num = photos[view.photo].findings.length;
      byId("place").textContent = num ? `${num} findings: choose one, or press j` : "No findings in this photo.";
      return;
    }
    sheet.querySelector(`[data-finding="${one.place}"]`).classList.add("chosen");
    const photo = photos[one.photo];
    const kind = one.kind === "crack" ? "Traced line" : "Block without a traced line";
    byId("place").textContent = `${kind}, ${findings.indexOf(one) + 1} of ${findings.length}`;
    const facts = [["evidence", `${Math.round(100 * one.prob)} %`], ["length", measure(one.length_px, photo)],
      ["width", measure(one.width_px, photo)], ["widest", measure(one.width_max_px, photo)], ["decision", verdictOf(one)]];
    byId("facts").replaceChildren(...facts.filter((fact) => fact[1]).flatMap(([name, value]) => [element(null, "dt", {}, name), element(null, "dd", {}, value)]));
    const { class: label = "crack", severity = "", note = "" } = one.decision || {};
    document.querySelector(`#panel [name="class"][value="${label}"]`).checked = true;
    byId("severity").value = severity;
    byId("note").value = note;
    byId("accept").setAttribute("aria-pressed", desk.status(one) === "accepted");
    byId("reject").setAttribute("aria-pressed", desk.status(one) === "rejected");
  }

  function decide(values) {
    if (viewer.open && view.finding) desk.change(view.finding, values);
  }

  const classed = (label) => decide({ class: label, status: "accepted" });

  function nextSeverity() {
    const at = settings.severities.indexOf(byId("severity").value);
    byId("severity").value = settings.severities[(at + 1) % settings.severities.length];
    changeSeverity();
  }

  // A severity or a note alone decides nothing, and confirms nothing.
  const changeSeverity = () => decide({ severity: byId("severity").value, ...carried() });
  const changeNote = () => {
    if (view.finding && byId("note").value !== ((view.finding.decision || {}).note || "")) decide({ note: byId("note").value, ...carried() });
  };
  const carried = () => ({ carried: Boolean(view.finding.decision && view.finding.decision.carried) });

  function undo() {
    const one = desk.undo();
    if (one && viewer.open) openFinding(one);
  }

  // The list

  // What has no scale is below all millimetres.
  const size = (px, one) => (px || 0) * (photos[one.photo].gsd || 1e-9);
  const value = {
    prob: (one) => one.prob,
    length: (one) => size(one.length_px, one),
    width: (one) => size(one.width_px, one),
    widest: (one) => size(one.width_max_px, one),
    photo: (one) => photos[one.photo].name,
  };

  function fill() {
    const wanted = findings.filter((one) => list.status === "all" || desk.status(one) === list.status);
    const of = value[list.key];
    list.shown = of ? wanted.sort((a, b) => (of(a) < of(b) ? -list.sign : of(a) > of(b) ? list.sign : 0)) : wanted;
    byId("finding-table").tBodies[0].replaceChildren();
    list.rows = 0;
    addRows(ROWS);
  }

  function addRows(num) {
    const fresh = list.shown.slice(list.rows, list.rows + num);
    byId("finding-table").tBodies[0].append(...fresh.map(row));
    list.rows += fresh.length;
    const left = list.shown.length - list.rows;
    byId("more").hidden = !left;
    byId("more").textContent = `Show the next ${Math.min(left, MORE_ROWS)} of ${left} more findings`;
  }

  function row(one) {
    const photo = photos[one.photo];
    const line = element(null, "tr", { "data-place": `${one.photo}/${one.place}` });
    const cell = (text, kind) => element(line, "td", kind ? { class: kind } : {}, text);
    const thumb = element(cell("", "text"), "button", { type: "button", class: "thumb", "aria-label": `Show in ${photo.name}` }, "");
    const crop = crops.get(line.dataset.place);
    if (crop) element(thumb, "img", { alt: "", src: jpeg(crop.textContent) });
    else thumb.textContent = "show";
    cell(`${one.kind === "block" ? "block " : ""}${Math.round(100 * one.prob)} %`);
    for (const px of [one.length_px, one.width_px, one.width_max_px]) cell(measure(px, photo));
    cell(photo.name, "text path");
    const last = cell("", "text decision");
    const pair = element(last, "span", { class: "pair" });
    element(pair, "button", { type: "button", "data-decide": "accepted", "aria-label": "Accept" }, "✓");
    element(pair, "button", { type: "button", "data-decide": "rejected", "aria-label": "Reject" }, "✗");
    element(last, "span", { class: "said" });
    mark(line, one);
    return line;
  }

  function mark(line, one) {
    line.className = desk.status(one);
    line.querySelector(".said").textContent = verdictOf(one);
    line.querySelectorAll("[data-decide]").forEach((each) => each.setAttribute("aria-pressed", each.dataset.decide === desk.status(one)));
  }

  const byPlace = (line) => findings.find((one) => `${one.photo}/${one.place}` === line.dataset.place);

  // What a decision changes on the page

  function refresh(one) {
    const counts = { all: findings.length, undecided: 0, accepted: 0, rejected: 0 };
    for (const each of findings) counts[desk.status(each)] += 1;
    const done = findings.length - counts.undecided;
    byId("progress").max = Math.max(1, findings.length);
    byId("progress").value = done;
    for (const id of ["progress-text", "panel-progress"]) byId(id).textContent = `${done} of ${findings.length} decided`;
    document.querySelectorAll("[data-status]").forEach((each) => {
      each.querySelector("span").textContent = `(${counts[each.dataset.status]})`;
    });
    if (!one) {
      fill();
      sheet.replaceChildren();
      if (viewer.open && view.finding) openFinding(view.finding);
      else if (viewer.open) openPhoto(view.photo);
      return;
    }
    const line = document.querySelector(`#finding-table tr[data-place="${one.photo}/${one.place}"]`);
    if (line) mark(line, one);
    const group = view.photo === one.photo && sheet.querySelector(`[data-finding="${one.place}"]`);
    if (group) group.setAttribute("class", desk.status(one));
    if (view.finding === one) showPanel();
  }

  // Mouse

  const on = (id, event, work) => byId(id).addEventListener(event, work);
  document.querySelectorAll(".card, .dot").forEach((each) => {
    each.addEventListener("click", () => openPhoto(Number(each.dataset.photo)));
  });
  function choose(attribute, work) {
    const buttons = document.querySelectorAll(`[${attribute}]`);
    buttons.forEach((button) => button.addEventListener("click", () => {
      buttons.forEach((one) => one.setAttribute("aria-pressed", one === button));
      work(button.getAttribute(attribute));
    }));
  }
  choose("data-show", (verdict) => document.querySelectorAll(".card").forEach((card) => {
    card.hidden = verdict !== "all" && card.dataset.verdict !== verdict;
  }));
  choose("data-status", (status) => {
    list.status = status;
    fill();
  });
  byId("finding-table").addEventListener("click", (event) => {
    const line = event.target.closest("tr[data-place]");
    const button = event.target.closest("button");
    if (!button) return;
    if (line && button.dataset.decide) desk.change(byPlace(line), { status: button.dataset.decide });
    else if (line) openFinding(byPlace(line));
    else sortBy(button.dataset.sort, button.closest("th"));
  });
  function sortBy(key, heading) {
    const descending = heading.getAttribute("aria-sort") !== "descending";
    document.querySelectorAll("#finding-table [aria-sort]").forEach((one) => one.setAttribute("aria-sort", "none"));
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
    Object.assign(list, { key, sign: descending ? -1 : 1 });
    fill();
  }
  on("more", "click", () => addRows(MORE_ROWS));
  on("start", "click", () => findings.length && openFinding(start()));
  on("save", "click", desk.save);
  on("load", "click", () => byId("load-file").click());
  on("load-file", "change", async (event) => {
    if (event.target.files.length) await desk.load(event.target.files[0]);
    event.target.value = "";
  });
  on("accept", "click", () => decide({ status: "accepted" }));
  on("reject", "click", () => decide({ status: "rejected" }));
  document.querySelectorAll("#panel [name=class]").forEach((each) => each.addEventListener("click", () => classed(each.value)));
  on("severity", "change", changeSeverity);
  on("note", "change", changeNote);
  window.addEventListener("pagehide", () => viewer.open && changeNote());  // reloaded or closed while one types
  on("undo", "click", undo);
  on("before", "click", () => stepFinding(-1));
  on("after", "click", () => stepFinding(1));
  on("panel", "submit", (event) => event.preventDefault());
  on("show-blocks", "change", toggleLayers);
  on("show-cracks", "change", toggleLayers);
  on("zoom-in", "click", () => zoom(1.5));
  on("zoom-out", "click", () => zoom(1 / 1.5));
  on("fit", "click", fit);
  on("previous", "click", () => step(-1));
  on("next", "click", () => step(1));
  on("close", "click", () => viewer.close());
  window.addEventListener("resize", () => viewer.open && fit());

  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    const frame = stage.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY / 400), event.clientX - frame.left, event.clientY - frame.top);
  }, { passive: false });
  const held = new Map();
  let moved = 0;
  const spread = () => {
    const [a, b] = held.values();
    return Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
  };
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    held.set(event.pointerId, event);
    stage.classList.add("held");
    moved = held.size > 1 ? 99 : 0;
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
    moved += Math.abs(event.clientX - before.clientX) + Math.abs(event.clientY - before.clientY);
    view.x += event.clientX - before.clientX;
    view.y += event.clientY - before.clientY;
    held.set(event.pointerId, event);
    place();
  });
  for (const name of ["pointerup", "pointercancel"]) {
    stage.addEventListener(name, (event) => {
      held.delete(event.pointerId);
      stage.classList.toggle("held", held.size > 0);
      if (name === "pointerup" && moved < 4) chooseAt(event);
    });
  }

  function chooseAt(event) {
    const frame = stage.getBoundingClientRect();
    const [x, y] = [(event.clientX - frame.left - view.x) / view.scale, (event.clientY - frame.top - view.y) / view.scale];
    const away = (one) => {
      const [x0, y0, x1, y1] = one.box;
      if (one.kind === "block") return x >= x0 && x <= x1 && y >= y0 && y <= y1 ? 8 : Infinity;
      return Math.min(...desk.points(one).map((point) => Math.hypot(point[0] - x, point[1] - y))) * view.scale;
    };
    const here = findings.filter((one) => one.photo === view.photo).map((one) => [away(one), one]).sort((a, b) => a[0] - b[0])[0];
    if (!here || here[0] > 16) return;
    view.finding = here[1];
    showPanel();
  }

  // Keyboard

  const keys = {
    j: () => stepFinding(1), ArrowRight: () => stepFinding(1), ArrowDown: () => stepFinding(1),
    k: () => stepFinding(-1), ArrowLeft: () => stepFinding(-1), ArrowUp: () => stepFinding(-1),
    a: () => decide({ status: "accepted" }), r: () => decide({ status: "rejected" }), s: nextSeverity, z: undo,
    n: () => byId("note").focus(), h: () => byId("show-cracks").click(),
    "+": () => zoom(1.5), "-": () => zoom(1 / 1.5), 0: fit,
  };
  settings.classes.forEach((label, at) => {
    keys[at + 1] = () => classed(label);
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("textarea, select, input:not([type=checkbox]):not([type=radio])");
    if (typing && event.key === "Escape" && viewer.open) {
      event.preventDefault();
      stage.focus();
    }
    if (typing || event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    if (!viewer.open && !"jkz".includes(event.key)) return;  // arrows scroll the page
    event.preventDefault();
    keys[event.key]();
  });
  on("who", "change", () => {
    try { localStorage.setItem("damcrack-who", byId("who").value); } catch { /* told when a decision cannot be stored */ }
  });
  try { byId("who").value = localStorage.getItem("damcrack-who") || ""; } catch { /* as above */ }

  // Print: all rows, and all photos with findings

  function printed(number) {
    const photo = photos[number], { whole, small } = sources(number), num = photo.findings.length;
    const figure = element(byId("print"), "figure", { class: "printed" });
    const box = element(figure, "div", { class: "sheet", style: `--ratio:${photo.width / photo.height};background-image:url(${small})` });
    element(box, "img", { alt: "", decoding: "sync", src: whole });
    box.append(overlay(number));
    element(figure, "figcaption", {}, `${photo.name}: ${num} finding${num === 1 ? "" : "s"}`);
  }

  window.addEventListener("beforeprint", () => {
    addRows(Infinity);
    cards.forEach(showThumbnail);
    photos.forEach((photo, number) => photo.findings.length && printed(number));
  });
  window.addEventListener("afterprint", () => byId("print").replaceChildren());

  // Thumbnails, of the cards that come into view

  const cards = document.querySelectorAll(".card");
  function showThumbnail(card) {
    const image = card.querySelector("img");
    if (!image.src) image.src = jpeg(desk.drawing(Number(card.dataset.photo)).thumbnail);
  }
  const near = new IntersectionObserver((entries) => entries.filter((one) => one.isIntersecting).forEach(({ target }) => {
    showThumbnail(target);
    near.unobserve(target);
  }), { rootMargin: "500px" });
  cards.forEach((card) => near.observe(card));

  desk.begin(refresh);
  refresh(null);
})();
