
/* Every item: a map of all of them, and the outputs of the one that is chosen. */
function explorer(box, data) {
  if (!data.suites.length) return;
  const form = box.querySelector("form");
  const { suite, retention, which: item, question, before, next } = form.elements;
  const shown = { rows: new Map(), suite: null };

  fill(suite, data.suites.map((each) => each.name));
  fill(retention, data.retentions.length ? data.retentions : ["all"]);
  suite.addEventListener("change", chooseSuite);
  retention.addEventListener("change", draw);
  item.addEventListener("change", chooseItem);
  question.addEventListener("change", outputs);
  before.addEventListener("click", () => step(-1));
  next.addEventListener("click", () => step(1));
  form.addEventListener("submit", (event) => event.preventDefault());
  box.querySelector(".map").addEventListener("click", (event) => {
    const cell = event.target.closest("td[data-item]");
    if (cell) choose(Number(cell.dataset.item));
  });
  box.hidden = false;
  chooseSuite();

  function fill(select, texts) {
    select.replaceChildren(...texts.map((text, at) => new Option(text, at)));
  }

  function chooseSuite() {
    shown.suite = data.suites[suite.value];
    shown.rows = new Map(shown.suite.rows.map((row) => [row.slice(0, 3).join(), row]));
    fill(item, shown.suite.items.map(([seed, name, variant]) =>
      `seed ${seed}: ${name}${variant ? ` (${variant})` : ""}`));
    draw();
  }

  function draw() {
    drawMap();
    chooseItem();
  }

  function step(by) {
    const count = shown.suite.items.length;
    choose((Number(item.value) + by + count) % count);
  }

  function choose(at) {
    item.value = at;
    chooseItem();
  }

  function chooseItem() {
    const rows = data.policies.map((_, policy) => row(policy)).filter(Boolean);
    const most = Math.max(0, ...rows.map((found) => found[6].length));
    const kept = Math.min(Number(question.value) || 0, Math.max(0, most - 1));
    fill(question, Array.from({ length: most }, (_, at) => `${at + 1} of ${most}`));
    if (most) question.value = kept;
    question.disabled = most < 2;
    for (const cell of box.querySelectorAll(".map td"))
      cell.classList.toggle("chosen", cell.dataset.item === item.value);
    outputs();
  }

  /* The anchors full and floor have no retention: theirs is -1. */
  function row(policy, at = Number(item.value)) {
    const wanted = data.retentions.length ? Number(retention.value) : -1;
    return shown.rows.get([at, policy, wanted].join()) || shown.rows.get([at, policy, -1].join());
  }

  function drawMap() {
    const lines = data.policies.map((name, policy) => {
      const cells = shown.suite.items.map(([, label], at) => mapCell(row(policy, at), name, label, at));
      return cells.some((cell) => cell.dataset.item) ? line(name, cells) : null;
    });
    box.querySelector(".map tbody").replaceChildren(...lines.filter(Boolean));
  }

  function mapCell(found, name, label, at) {
    const cell = document.createElement("td");
    if (!found) {
      cell.className = "gap";
      return cell;
    }
    cell.dataset.item = at;
    cell.dataset.tip = `${data.labels[name] ?? name} on ${label}: score ${number(found[3])}`;
    cell.style.setProperty("--v", Math.max(0, Math.min(1, found[3])));
    return cell;
  }

  function line(policy, cells) {
    const tr = document.createElement("tr");
    const th = document.createElement("th");
    tr.dataset.policy = policy;
    tr.classList.toggle("on", focus.has(policy));
    th.scope = "row";
    th.append(keyOf(policy));
    tr.append(th, ...cells);
    return tr;
  }

  /* The swatch as the server drew it, wherever it stands on the page. */
  function keyOf(policy) {
    const known = [...document.querySelectorAll("[data-focus]")].find((each) => each.dataset.focus === policy);
    if (known) return known.firstElementChild.cloneNode(true);
    return document.createTextNode(data.labels[policy] ?? policy);
  }

  function outputs() {
    const full = data.policies.indexOf("full");
    const reference = full < 0 ? null : text(row(full));
    const lines = data.policies.map((name, policy) => [name, row(policy)]).filter(([, found]) => found);
    box.querySelector(".outputs tbody").replaceChildren(
      ...lines.map(([name, found]) => output(name, found, reference)));
    const [seed, name, variant, tokens] = shown.suite.items[item.value];
    box.querySelector(".about").textContent =
      `${name}, seed ${seed}${variant ? `, ${variant}` : ""}: ${tokens} tokens of context, ` +
      `${lines.length} policies, score is ${shown.suite.score}`;
  }

  function asked(found) {
    return found && found[6][Number(question.value) || 0];
  }

  function text(found) {
    const one = asked(found);
    return one && one[4] >= 0 ? data.texts[one[4]] : null;
  }

  function output(name, found, reference) {
    const [exact, slots, nll, evidence] = asked(found) || [];
    const words = document.createElement("td");
    words.append(...marked(text(found), reference));
    const cells = [exact, slots, nll, evidence].map((value) => {
      const cell = document.createElement("td");
      cell.textContent = number(value);
      return cell;
    });
    cells[0].classList.toggle("right", exact === 1);
    const tr = line(name, [words, ...cells]);
    if (name === "full") tr.className += " reference";
    else if (reference !== null && text(found) === reference) words.className = "same";
    return tr;
  }

  /* The text, with what departs from the reference marked: greedy decoding agrees up to there. */
  function marked(given, reference) {
    if (given === null) return [note("no text was generated for this question")];
    if (given === "") return [note("(empty)")];
    if (reference === null || given === reference) return [inLine(given)];
    let same = 0;
    while (same < given.length && given[same] === reference[same]) same += 1;
    const rest = document.createElement("mark");
    rest.textContent = inLine(given.slice(same));
    return rest.textContent ? [inLine(given.slice(0, same)), rest] : [inLine(given)];
  }

  function inLine(words) {
    return words.replaceAll("\n", "↵ ");
  }

  function note(words) {
    const span = document.createElement("span");
    span.className = "same";
    span.textContent = words;
    return span;
  }

  function number(value) {
    return value === null || value === undefined ? "–" : String(Math.round(value * 1000) / 1000);
  }
}
