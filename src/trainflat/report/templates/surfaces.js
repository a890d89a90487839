"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  // "@name" becomes the theme's colour; only where plotly expects a colour, never in a label.
  const color = (token) => getComputedStyle(document.documentElement).getPropertyValue("--" + token.slice(1)).trim();
  function painted(value, key) {
    if (key === "colorscale") return value.map(([place, token]) => [place, color(token)]);
    if (typeof value === "string") return /color$/i.test(key) && value[0] === "@" ? color(value) : value;
    if (!value || typeof value !== "object" || Array.isArray(value)) return value;
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, painted(each, name)]));
  }
  function axis(title) {
    const rules = { gridcolor: "@rule", linecolor: "@muted", tickcolor: "@muted", backgroundcolor: "@ground" };
    return { title: { text: title, font: { size: 11 } }, color: "@ink", zeroline: false, ...rules };
  }
  function draw() {
    Object.entries(figures).forEach(([id, surfaces]) => surfaces.forEach((surface, k) => {
      const axes = Object.fromEntries(Object.entries(surface.axes).map(([name, title]) => [name, axis(title)]));
      const camera = { eye: { x: 1.45, y: 1.45, z: 1.3 }, center: { x: 0, y: 0, z: -0.15 } };
      const scene = { ...axes, dragmode: "turntable", aspectmode: "manual", aspectratio: { x: 1, y: 1, z: 0.7 }, camera };
      const margin = { l: 0, r: 0, t: 0, b: 0 };
      const look = { font: { size: 12, color: "@ink" }, paper_bgcolor: "@ground", showlegend: false, margin, scene };
      Plotly.react(id + "-" + k, surface.data.map((trace) => painted(trace)), painted(look), { displaylogo: false, responsive: true });
    }));
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
})();
