// Third-party assets of the console: node build.mjs OUTPUT_FOLDER
//
// htmx as it is; ECharts cut down to the charts that the pages draw; Fluent's tokens as CSS variables,
// light on :root and, for dark, only what differs; Fluent's icons as one SVG sprite.
import { build } from "esbuild";
import { webDarkTheme, webLightTheme } from "@fluentui/tokens";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const out = process.argv[2];
const modules = join(here, "node_modules");

const ICONS = [
  "apps", "arrow_down", "arrow_download", "arrow_sync", "arrow_up", "box", "certificate",
  "checkmark_circle", "chevron_left", "chevron_right", "clock", "cloud", "cloud_link", "desktop",
  "dismiss_circle", "document", "flow", "globe", "history", "home", "info", "key", "laptop", "link",
  "organization", "people", "person", "plug_connected", "search", "server", "settings", "shield",
  "sign_out", "warning", "weather_moon", "weather_sunny",
  "add", "alert", "apps_list", "archive", "arrow_right", "arrow_undo", "arrow_upload", "beaker", "book_open",
  "calendar", "checkmark", "clipboard_task", "copy", "delete", "dismiss", "edit", "filter", "lock_closed",
  "more_horizontal", "navigation", "open", "people_audience", "people_team", "play", "pulse", "send", "stop", "tag",
  "task_list_ltr", "wrench",
];

const variables = (theme, keep) =>
  Object.entries(theme).filter(([name, value]) => keep(name, value))
    .map(([name, value]) => `--${name}:${value}`).join(";");

const dark = variables(webDarkTheme, (name, value) => webLightTheme[name] !== value);

const sprite = () => {
  const symbols = ICONS.map((icon) => {
    const svg = readFileSync(join(modules, "@fluentui/svg-icons/icons", `${icon}_20_regular.svg`), "utf8");
    const inner = svg.replace(/^[^>]*>/, "").replace(/<\/svg>\s*$/, "");
    return `<symbol id="${icon}" viewBox="0 0 20 20">${inner}</symbol>`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg">${symbols.join("")}</svg>\n`;
};

const charts = async () => {
  const entry = `
    import { init, use } from "echarts/core";
    import { BarChart, PieChart } from "echarts/charts";
    import { AriaComponent, GridComponent, LegendComponent, TooltipComponent } from "echarts/components";
    import { SVGRenderer } from "echarts/renderers";
    use([AriaComponent, BarChart, GridComponent, LegendComponent, PieChart, SVGRenderer,
         TooltipComponent]);
    window.echarts = { init };`;
  const made = await build({
    stdin: { contents: entry, resolveDir: here }, bundle: true, minify: true, write: false,
    format: "iife", target: "es2020", legalComments: "none",
  });
  return made.outputFiles[0].text;
};

const licence = (name, files) => {
  const { version, license } = JSON.parse(readFileSync(join(modules, name, "package.json"), "utf8"));
  for (const file of files) {
    try {
      return `${name} ${version} (${license})\n\n${readFileSync(join(modules, name, file), "utf8")}`;
    } catch { /* the next name it may have */ }
  }
  return `${name} ${version} (${license})\n`;
};

mkdirSync(out, { recursive: true });
const NAMES = ["LICENSE", "LICENSE.md", "LICENSE.txt", "license"];
const files = {
  "htmx.min.js": readFileSync(join(modules, "htmx.org/dist/htmx.min.js"), "utf8"),
  "echarts.min.js": await charts(),
  "tokens.css":
    `:root{${variables(webLightTheme, () => true)}}\n[data-theme=dark]{${dark}}\n` +
    `@media (prefers-color-scheme:dark){[data-theme=auto]{${dark}}}\n`,
  "icons.svg": sprite(),
  "LICENSES.txt": ["htmx.org", "echarts", "zrender", "tslib", "@fluentui/tokens", "@fluentui/svg-icons"]
    .map((name) => licence(name, NAMES)).join("\n\n----\n\n"),
};
for (const [name, text] of Object.entries(files)) writeFileSync(join(out, name), text);

const lock = JSON.parse(readFileSync(join(here, "package-lock.json"), "utf8"));
const manifest = {
  versions: Object.fromEntries(
    ["htmx.org", "echarts", "@fluentui/tokens", "@fluentui/svg-icons"].map((name) =>
      [name, lock.packages[`node_modules/${name}`].version])),
  sha256: Object.fromEntries(Object.entries(files).map(([name, text]) =>
    [name, createHash("sha256").update(text).digest("hex")])),
};
writeFileSync(join(out, "manifest.json"), JSON.stringify(manifest, null, 2) + "\n");
