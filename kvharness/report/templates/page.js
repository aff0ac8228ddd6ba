"use strict";
document.documentElement.classList.add("js");

/* Panels: of several charts of one kind, one at a time, chosen by what they differ in. */
function panels(box) {
  const keys = box.dataset.panels.split(" ");
  const labels = box.dataset.label.split(",");
  const all = [...box.children].filter((child) => child.classList.contains("panel"));
  const chosen = { ...all[0].dataset };
  const bar = document.createElement("div");
  bar.className = "switches";
  keys.forEach((key, at) => {
    const values = [...new Set(all.map((panel) => panel.dataset[key]))];
    if (values.length > 1) bar.append(switchOf(labels[at], key, values));
  });
  if (bar.children.length) box.prepend(bar);
  show();

  function switchOf(label, key, values) {
    const group = document.createElement("div");
    group.className = "switch";
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", label);
    const title = document.createElement("span");
    title.textContent = label;
    group.append(title);
    for (const value of values) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = value;
      button.dataset.key = key;
      button.dataset.value = value;
      button.addEventListener("click", () => {
        chosen[key] = value;
        show();
      });
      group.append(button);
    }
    return group;
  }

  function show() {
    const fits = (panel) => keys.every((key) => panel.dataset[key] === chosen[key]);
    const on = all.find(fits) || all.find((panel) => panel.dataset[keys[0]] === chosen[keys[0]]);
    for (const panel of all) panel.classList.toggle("on", panel === on);
    for (const key of keys) chosen[key] = on.dataset[key];
    for (const button of bar.querySelectorAll("button"))
      button.setAttribute("aria-pressed", String(chosen[button.dataset.key] === button.dataset.value));
  }
}

/* The legend: chosen policies stand out in every chart and table. */
const focus = new Set();

function refocus(root) {
  document.body.classList.toggle("focused", focus.size > 0);
  for (const part of root.querySelectorAll("[data-policy]"))
    part.classList.toggle("on", focus.has(part.dataset.policy));
  for (const button of root.querySelectorAll("[data-focus]"))
    button.setAttribute("aria-pressed", String(focus.has(button.dataset.focus)));
}

function legends() {
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-focus]");
    if (!button) return;
    const policy = button.dataset.focus;
    if (!focus.delete(policy)) focus.add(policy);
    refocus(document);
  });
}

/* What a mark stands for, beside the pointer. */
function tips() {
  const tip = document.getElementById("tip");
  const hide = () => { tip.hidden = true; };
  document.addEventListener("pointerover", (event) => {
    const part = event.target.closest("[data-tip]");
    if (!part) return hide();
    tip.textContent = part.dataset.tip;
    tip.hidden = false;
    place(tip, event);
  });
  document.addEventListener("pointermove", (event) => {
    if (!tip.hidden) place(tip, event);
  });
  document.addEventListener("scroll", hide, { passive: true });
}

function place(tip, event) {
  const { offsetWidth: width, offsetHeight: height } = tip;
  const right = document.documentElement.clientWidth - width - 8;
  const above = event.clientY - height - 12;
  tip.style.left = `${Math.max(8, Math.min(event.clientX + 12, right))}px`;
  tip.style.top = `${above < 8 ? event.clientY + 18 : above}px`;
}

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("[data-panels]").forEach(panels);
  legends();
  tips();
  explorer(document.getElementById("explorer"), JSON.parse(document.getElementById("data").textContent));
});
