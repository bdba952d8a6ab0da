// What pages cannot do without a script: draw charts, open the side panel, and say when a request failed.
"use strict";

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const hues = () => ["Blue", "Teal", "Marigold", "Berry", "Green", "Purple"].map((hue) => css(`--colorPalette${hue}BorderActive`));
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
  funnel: (rows, text) => ({
    series: [{
      type: "funnel", sort: "none", left: "4%", width: "44%", top: 8, bottom: 8, gap: 2, minSize: "6%", data: rows,
      label: { position: "right", color: text, width: 150, overflow: "break",
        formatter: (item) => `${item.name}: ${decimal(item.value)}` },
      labelLine: { length: 8 },
    }],
  }),
  bars: (rows, text) => ({
    grid: { left: 8, right: 24, top: 8, bottom: 8, containLabel: true },
    xAxis: { type: "value", minInterval: 1, axisLabel: { color: text, formatter: decimal },
      splitLine: { lineStyle: { color: css("--colorNeutralStroke2") } } },
    yAxis: { type: "category", inverse: true, data: rows.map((row) => row.name), axisLabel: { color: text } },
    series: [{ type: "bar", data: rows, barMaxWidth: 18, itemStyle: { color: hues()[0] },
      label: { show: true, position: "right", color: text, formatter: (item) => decimal(item.value) } }],
  }),
};

const drawn = new WeakMap();

function draw(box) {
  const rows = JSON.parse(box.dataset.values);
  const chart = drawn.get(box)?.chart ?? window.echarts.init(box, null, { renderer: "svg" });
  const text = css("--colorNeutralForeground1");
  const tooltip = { trigger: "item", confine: true, backgroundColor: css("--colorNeutralBackground1"),
    textStyle: { color: text }, formatter: (item) => `${item.name}: ${item.data.shown}` };
  chart.setOption({ color: hues(), animation: false, aria: quiet, tooltip, ...shapes[box.dataset.kind](rows, text) }, true);
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
document.addEventListener("close", (event) => {
  if (event.target.id === "panel") document.getElementById("panel-content").replaceChildren();
}, true);
document.addEventListener("htmx:error", () => toast(document.body.dataset.unreachable));
document.addEventListener("htmx:response:error", () => toast(document.body.dataset.failed));
