"use strict";
(() => {
  const groups = JSON.parse(document.getElementById("figures").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 640px)");
  const touch = matchMedia("(pointer: coarse)").matches;

  // "@name" or "@name/opacity" becomes the theme's colour; only where plotly expects a colour, never in a label.
  function color(token) {
    const [name, opacity] = token.slice(1).split("/");
    const hex = getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
    return opacity ? hex + Math.round(255 * opacity).toString(16).padStart(2, "0") : hex;
  }
  function painted(value, key) {
    if (key === "colorscale") return value.map(([place, token]) => [place, color(token)]);
    if (typeof value === "string") return /color$/.test(key) && value[0] === "@" ? color(value) : value;
    if (Array.isArray(value)) return value.map((each) => (each && typeof each === "object" ? painted(each, key) : each));
    if (!value || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, painted(each, name)]));
  }
  function axis(own) {
    const common = { gridcolor: "@rule", linecolor: "@muted", tickcolor: "@muted", zeroline: false, showline: true, automargin: true };
    return { ...common, ...own, title: { standoff: 8, font: { size: 12 }, ...own.title } };
  }
  function layout(own) {
    return painted({
      ...own,
      xaxis: axis(own.xaxis),
      yaxis: axis(own.yaxis),
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: "@ink" },
      paper_bgcolor: "@ground",
      plot_bgcolor: "@ground",
      hoverlabel: { bgcolor: "@raised", bordercolor: "@rule", font: { color: "@ink" } },
      legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", maxheight: 0.9, tracegroupgap: 0, bgcolor: "@ground", font: { size: narrow.matches ? 11 : 12 } },
      margin: { l: 52, r: 12, t: 8, b: 44, ...own.margin },
      dragmode: touch ? false : "zoom",
      showlegend: own.yaxis.type !== "category",
    });
  }
  const config = { displaylogo: false, responsive: true, displayModeBar: touch ? false : "hover", modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };

  function draw(id) {
    const group = groups[id];
    group.plots.forEach((plot, k) => {
      const frame = plot.frames[Math.min(group.active, plot.frames.length - 1)];
      const data = frame.data.map((trace) => painted(trace));
      if (narrow.matches) data.forEach((trace) => { if (trace.type === "heatmap") trace.showscale = false; });
      Plotly.react(id + "-" + k, data, layout(frame.layout), config);
    });
  }
  // Figures are drawn when they come near, since dozens of them at once would hold up the page.
  const drawn = new Set();
  const first = (id) => drawn.has(id) || (drawn.add(id), draw(id));
  const redraw = () => drawn.forEach(draw);
  const near = new IntersectionObserver((seen) => seen.forEach((one) => one.isIntersecting && first(one.target.id)), { rootMargin: "1000px" });

  document.querySelectorAll("select[data-group]").forEach((select) => {
    groups[select.dataset.group].active = Number(select.value); // browsers keep a choice over a reload
    select.addEventListener("change", () => {
      groups[select.dataset.group].active = Number(select.value);
      drawn.add(select.dataset.group);
      draw(select.dataset.group);
    });
  });
  dark.addEventListener("change", redraw);
  narrow.addEventListener("change", redraw);
  addEventListener("beforeprint", () => Object.keys(groups).forEach(first));
  Object.keys(groups).forEach((id) => near.observe(document.getElementById(id)));
})();
