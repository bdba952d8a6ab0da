// What pages cannot do without a script: draw charts, open the side panel, and say when a request failed.
"use strict";

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const hues = () => ["Blue", "Teal", "Marigold", "Berry", "Red", "Purple"].map((hue) => css(`--colorPalette${hue}BorderActive`));
const decimal = (value) => value.toLocaleString(document.documentElement.lang);
const quiet = { show: true, enabled: false };

const shapes = {
  donut: (rows, text) => ({
    series: [{
      type: "pie", radius: ["48%", "74%"], center: ["50%", "50%"], minShowLabelAngle: 12,
      data: rows.map((row, index) => ({ ...row, itemStyle: { color: hues()[index] } })).filter((row) => row.value),
      label: { color: text, formatter: (item) => `${decimal(Math.round(item.percent))} %` },
      itemStyle: { borderColor: css("--colorNeutralBackground1"), borderWidth: 2 },
    }],
  }),
  // Not ECharts' funnel: its trapezia join one step to the next, and steps here may be empty or grow again.
  funnel: (rows, text) => {
    const most = Math.max(1, ...rows.map((row) => row.value));
    return {
      grid: { left: 4, right: "50%", top: 8, bottom: 8 },
      xAxis: { type: "value", show: false, max: most },
      yAxis: { type: "category", inverse: true, show: false, data: rows.map((row) => row.name) },
      series: [
        { type: "bar", stack: "funnel", silent: true, barCategoryGap: "12%", tooltip: { show: false }, itemStyle: { color: "transparent" },
          data: rows.map((row) => (most - row.value) / 2) },
        { type: "bar", stack: "funnel", data: rows.map((row, index) => ({ ...row, itemStyle: { color: hues()[index], borderRadius: 2 } })) },
        // The labels stand in one column, whatever the widths of the steps are.
        { type: "bar", stack: "funnel", silent: true, tooltip: { show: false }, itemStyle: { color: "transparent" },
          data: rows.map((row) => ({ value: (most - row.value) / 2, shown: `${row.name}: ${decimal(row.value)}` })),
          label: { show: true, position: "right", color: text, width: 150, overflow: "break", formatter: (item) => item.data.shown } },
      ],
    };
  },
  bars: (rows, text) => ({
    ...lying(rows, text),
    series: [{ type: "bar", data: rows, barMaxWidth: 18, itemStyle: { color: hues()[0] },
      label: { show: true, position: "right", color: text, formatter: (item) => decimal(item.value) } }],
  }),
  // Each row in parts, told apart by colour and pattern; `parts` are a row's values in the order of the names.
  parts: (rows, text, box) => ({
    ...lying(rows, text, 28),
    legend: { bottom: 0, textStyle: { color: text }, itemWidth: 12, itemHeight: 12 },
    series: JSON.parse(box.dataset.parts).map((name, index) => ({
      type: "bar", stack: "parts", name, barMaxWidth: 18, itemStyle: { color: hues()[index], ...(index && { decal: { symbol: "rect", dashArrayX: [1, 0], dashArrayY: [2, 4], rotation: -0.7, color: "rgba(0,0,0,.25)" } }) },
      data: rows.map((row) => ({ name: row.name, ...row.parts[index] })),
    })),
  }),
};

const lying = (rows, text, below = 8) => ({
  grid: { left: 8, right: 24, top: 8, bottom: below, containLabel: true },
  xAxis: { type: "value", minInterval: 1, axisLabel: { color: text, formatter: decimal },
    splitLine: { lineStyle: { color: css("--colorNeutralStroke2") } } },
  yAxis: { type: "category", inverse: true, data: rows.map((row) => row.name), axisLabel: { color: text } },
});

const drawn = new WeakMap();

function draw(box) {
  const rows = JSON.parse(box.dataset.values);
  const chart = drawn.get(box)?.chart ?? window.echarts.init(box, null, { renderer: "svg" });
  const text = css("--colorNeutralForeground1");
  const tooltip = { trigger: "item", confine: true, backgroundColor: css("--colorNeutralBackground1"),
    textStyle: { color: text }, formatter: (item) => `${item.name}${item.data.part ? `, ${item.seriesName}` : ""}: ${item.data.shown}` };
  chart.setOption({ color: hues(), animation: false, aria: quiet, tooltip, ...shapes[box.dataset.kind](rows, text, box) }, true);
  if (!drawn.has(box)) chart.on("click", (item) => { if (item.data?.url) location.href = item.data.url; });
  drawn.set(box, { chart, values: box.dataset.values });
}

function drawAll(anew) {
  if (!window.echarts) return;
  for (const box of document.querySelectorAll(".chart")) {
    const known = drawn.get(box);
    if (known && !box.firstChild) { known.chart.dispose(); drawn.delete(box); }
    if (anew || drawn.get(box)?.values !== box.dataset.values) draw(box);
  }
}

function toast(message) {
  const box = document.getElementById("toast");
  box.textContent = message;
  setTimeout(() => { if (box.textContent === message) box.textContent = ""; }, 8000);
}

drawAll(true);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll(true));
addEventListener("resize", () => document.querySelectorAll(".chart").forEach((box) => drawn.get(box)?.chart.resize()));

document.addEventListener("htmx:after:swap", () => {
  drawAll(false);
  const panel = document.getElementById("panel");
  if (panel && !panel.open && panel.querySelector("#panel-title")) panel.showModal();
});
// A list in which something is ticked stays as it is until that is done with.
document.addEventListener("htmx:before:request", (event) => {
  const box = event.target;
  if (box.id === "live" && box.querySelector("input[type=checkbox]:checked")) event.preventDefault();
});
document.addEventListener("close", (event) => {
  if (event.target.id === "panel") document.getElementById("panel-content").replaceChildren();
}, true);
document.addEventListener("htmx:error", () => toast(document.body.dataset.unreachable));
document.addEventListener("htmx:response:error", () => toast(document.body.dataset.failed));

// What is marked in a picker goes to what is chosen before the next search replaces the list.
document.addEventListener("htmx:before:swap", () => {
  for (const picker of document.querySelectorAll(".picker")) {
    const chosen = picker.querySelector(".chosen");
    for (const item of picker.querySelectorAll(".found li:has(input:checked)")) {
      if (item.querySelector("input").type === "radio") chosen.replaceChildren();
      chosen.append(item);
      chosen.hidden = false;
    }
  }
});
document.addEventListener("htmx:after:swap", () => {
  for (const picker of document.querySelectorAll(".picker")) {
    const known = new Set([...picker.querySelectorAll(".chosen input:not([type=hidden])")].map((box) => box.value));
    for (const box of picker.querySelectorAll(".found input:not([type=hidden])")) if (known.has(box.value)) box.closest("li").remove();
  }
});

// Buttons that copy a text; a form that is sent once; a file that is sent with its progress and can be called back.
document.documentElement.classList.add("has-script");
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  try {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    toast(document.body.dataset.copied);
  } catch {
    getSelection().selectAllChildren(document.getElementById(button.dataset.copy));
  }
});
document.addEventListener("submit", (event) => {
  const form = event.target;
  const bar = form.querySelector("progress[data-upload]");
  if (bar && form.querySelector("input[type=file]")?.files.length) return send(event, form, bar);
  if (form.querySelector("[data-once]")) {
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "1";
  }
});
addEventListener("pageshow", () => document.querySelectorAll("form[data-sent]").forEach((form) => delete form.dataset.sent));

function send(event, form, bar) {
  event.preventDefault();
  const request = new XMLHttpRequest();
  const cancel = form.querySelector("[data-cancel]");
  const over = (text) => { bar.hidden = true; if (cancel) cancel.hidden = true; if (text) toast(text); };
  bar.hidden = false;
  bar.value = 0;
  if (cancel) { cancel.hidden = false; cancel.onclick = () => request.abort(); }
  request.upload.onprogress = (at) => { if (at.lengthComputable) { bar.max = at.total; bar.value = at.loaded; } };
  request.onabort = () => over("");
  request.onerror = () => over(document.body.dataset.unreachable);
  request.onload = () => {
    if (request.responseURL && new URL(request.responseURL).pathname !== new URL(form.action).pathname) { location.href = request.responseURL; return; }
    const page = new DOMParser().parseFromString(request.responseText, "text/html");
    document.getElementById("main").replaceWith(page.getElementById("main"));
    window.htmx?.process(document.body);
    document.querySelector("main [autofocus]")?.focus();
  };
  request.open("POST", form.action);
  request.send(new FormData(form, event.submitter));
}
