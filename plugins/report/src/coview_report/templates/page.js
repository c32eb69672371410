(() => {
  const specs = JSON.parse(document.getElementById("specs").textContent);
  const images = JSON.parse(document.getElementById("images").textContent);
  for (const spec of Object.values(specs)) {
    for (const row of spec.data?.values ?? []) {
      if (row.tip?.image !== undefined) row.tip.image = images[row.tip.image];
    }
  }
  // Vega draws with the colours of the page, which are others in the dark.
  const colours = () => {
    const style = getComputedStyle(document.documentElement);
    const of = (name) => style.getPropertyValue(name).trim();
    const font = getComputedStyle(document.body).fontFamily;
    const series = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map((n) => of(`--c${n}`));
    return {
      background: "transparent", font, view: { stroke: null },
      axis: {
        labelColor: of("--quiet"), titleColor: of("--quiet"), gridColor: of("--line"), labelFontSize: 12,
        titleFontSize: 12, titleFontWeight: "normal", ticks: false, domain: false, labelPadding: 6,
      },
      axisX: { grid: false, domain: true, domainColor: of("--line") },
      legend: { labelColor: of("--ink"), labelFontSize: 13, symbolStrokeWidth: 0, symbolOpacity: 1, symbolSize: 80 },
      range: { category: series },
      line: { color: series[0], strokeWidth: 2 }, point: { color: series[0], fill: series[0] },
      circle: { color: series[0] },
      style: {
        level: { color: of("--quiet"), strokeDash: [3, 3] },
        named: { color: of("--quiet"), fontSize: 12 },
        warned: { color: of("--warn"), opacity: 1 },
        bound: { color: of("--bad"), strokeDash: [3, 3] },
      },
    };
  };
  // Where the nearest point is looked for, a mark's datum is the point's mark, which has the row.
  const pointed = (spec) => {
    for (const mark of spec.marks ?? []) {
      if (mark.name?.endsWith("voronoi")) mark.encode.update.tooltip = { signal: "datum.datum.tip" };
      pointed(mark);
    }
    return spec;
  };
  // A finger leaves when it lifts, which hides the tooltip: a tap shows it until the next touch.
  const tapped = ({ view }) => {
    const show = (event, item) => view.tooltip()(null, event, item, item?.tooltip ?? null);
    view.addEventListener("click", show);
    document.addEventListener("pointerdown", (event) => show(event, null));
  };
  // With the keyboard, arrows go through the points of a map from left to right; Escape leaves.
  const walked = (place, spec) => ({ view }) => {
    const rows = spec.data?.values ?? [];
    const order = rows.map((_, number) => number).sort((a, b) => rows[a].x - rows[b].x);
    let at = -1;
    place.onkeydown = (event) => {
      const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") view.tooltip()(null, event, null, null);
      if (!by) return;
      event.preventDefault();
      at = Math.min(Math.max(at + by, 0), order.length - 1);
      const mark = place.querySelectorAll(".mark-symbol.role-mark path")[order[at]];
      const box = mark.getBoundingClientRect();
      view.tooltip()(null, { clientX: box.right, clientY: box.bottom }, {}, rows[order[at]].tip);
    };
    place.onblur = (event) => view.tooltip()(null, event, null, null);
  };
  const draw = () => {
    for (const place of document.querySelectorAll("[data-chart]")) {
      vegaEmbed(place, specs[place.dataset.chart], { actions: false, renderer: "svg", config: colours(), patch: pointed })
        .then((drawn) => { tapped(drawn); if (place.matches(".map")) walked(place, specs[place.dataset.chart])(drawn); })
        .catch((error) => { place.textContent = `This chart could not be drawn: ${error.message}`; });
    }
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
})();
