"use strict";
(() => {
  const content = JSON.parse(document.getElementById("content").textContent);
  const board = document.getElementById("board");
  const panel = document.getElementById("panel");
  const chosen = Object.fromEntries(content.filters.map((one) => [one.name, one.chosen]));
  const state = { sort: "accuracy", down: true, references: true, seeds: 0, filters: { ...chosen } };

  // --- words -----------------------------------------------------------------------------
  const missing = "–";
  const unit = (value, steps) => {
    for (const [name, factor] of steps) if (value >= factor) return `${three(value / factor)} ${name}`;
    return `${three(value)}`;
  };
  const three = (value) => (Number.isInteger(value) && value < 1000 ? `${value}` : value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0));
  const bytes = (value) => (value < 1000 ? `${Math.round(value)} B` : unit(value, [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]));
  const flops = (value) => unit(value, [["P", 1e15], ["T", 1e12], ["G", 1e9], ["M", 1e6]]);
  const percent = (value) => (100 * value).toFixed(2);
  const element = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key === "class") made.className = value;
      else if (key in made && typeof value !== "string") made[key] = value;
      else made.setAttribute(key, value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  };

  // --- the leaderboard -------------------------------------------------------------------
  const varying = content.filters.filter((one) => one.values.length > 1);
  const numbers = [
    ["accuracy", content.accuracy === "test" ? "accuracy %" : "validation %", percent], ["teacher_accuracy", "teacher %", percent],
    ["up_per_client", "up / client", bytes], ["down_per_client", "down / client", bytes],
    ["client_seconds", "clients s", three], ["server_seconds", "server s", three],
    ["server_flops", "server FLOPs", flops], ["usefulness", "trained on images %", percent],
    ...content.extractors.map((name) => [`${name}.${content.ratio[0]}`, `Fréchet ÷ ${content.ratio[1]} (${name})`, three]),
  ].filter(([key]) => content.rows.some((row) => row[key]));
  const columns = [
    { key: "label", title: "method", text: true },
    ...varying.map((one) => ({ key: one.name, title: one.title, text: true, setting: true })),
    ...numbers.map(([key, title, form]) => ({ key, title, form })),
    { key: "done", title: "seeds" },
  ];
  const value = (row, column) => {
    if (column.setting) {
      const text = row.settings[column.key];
      return Number.isNaN(Number(text)) ? text : Number(text);
    }
    const found = row[column.key];
    return Array.isArray(found) ? found[0] : found;
  };
  const shown = (all = "") => content.rows.filter((row) =>
    (state.references || !row.reference) && row.done >= state.seeds &&
    Object.entries(state.filters).every(([name, wanted]) => !wanted || name === all || row.settings[name] === wanted));
  const sorted = (rows) => {
    const column = columns.find((one) => one.key === state.sort) ?? columns[0];
    const sign = state.down ? -1 : 1;
    return [...rows].sort((first, second) => {
      const [a, b] = [value(first, column), value(second, column)];
      // What has no number stands last, whichever way the others are sorted.
      if (a === null || a === undefined) return b === null || b === undefined ? 0 : 1;
      if (b === null || b === undefined) return -1;
      const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
      return sign * order || first.label.localeCompare(second.label);
    });
  };
  const cell = (row, column) => {
    if (column.key === "label") return element("th", { scope: "row", class: "text" }, row.label + row.flag);
    if (column.setting) return element("td", { class: "text" }, row.settings[column.key]);
    if (column.key === "done") return element("td", {}, `${row.done} of ${row.planned}`);
    const found = row[column.key];
    const made = element("td", { class: found ? "" : "muted" });
    let text = found ? column.form(found[0]) : missing;
    if (column.key !== "accuracy") {
      made.append(text);
    } else {
      if (!found) text = row.status || missing;
      if (row.best) made.classList.add("best");
      if (row.second) made.classList.add("second");
      const open = element("button", { type: "button", class: "open", "aria-haspopup": "dialog" }, text);
      open.addEventListener("click", () => openRow(row));
      made.append(open);
    }
    if (found && found[1] && column.form === percent) made.append(element("span", { class: "sd" }, ` ± ${percent(found[1])}`));
    return made;
  };
  const drawBoard = () => {
    board.tHead.replaceChildren(element("tr", {}, ...columns.map((column) => {
      const sorting = column.key === state.sort ? (state.down ? "descending" : "ascending") : "none";
      const button = element("button", { type: "button" }, column.title);
      button.addEventListener("click", () => {
        state.down = column.key === state.sort ? !state.down : !column.text;
        state.sort = column.key;
        draw();
        board.tHead.rows[0].cells[columns.indexOf(column)].firstChild.focus();
      });
      return element("th", { scope: "col", "aria-sort": sorting, class: column.text ? "text" : "" }, button);
    })));
    const rows = sorted(shown());
    board.tBodies[0].replaceChildren(...rows.map((row) =>
      element("tr", { class: row.reference ? "reference" : "" }, ...columns.map((column) => cell(row, column)))));
    document.getElementById("count").textContent = `${rows.length} of ${content.rows.length} rows`;
  };

  // --- filters, kept in the address ------------------------------------------------------
  const drawFilters = () => {
    const form = document.getElementById("filters");
    const select = (title, name, options, current) => {
      const made = element("select", { name });
      for (const [key, text] of options) made.append(element("option", { value: key, selected: key === current }, text));
      return element("label", {}, title, made);
    };
    const most = Math.max(0, ...content.rows.map((row) => row.planned));
    const counts = Array.from({ length: most + 1 }, (_, n) => [`${n}`, n ? `at least ${n}` : "any"]);
    const tick = element("input", { type: "checkbox", name: "references", checked: state.references });
    const reset = element("button", { type: "reset", class: "reset" }, "Reset");
    form.replaceChildren(
      ...content.filters.filter((one, at) => at < 3 || one.values.length > 1).map((one) => select(one.title, one.name,
        [["", "all"], ...one.values.map((item) => [item, item])], state.filters[one.name] ?? "")),
      select("finished seeds", "seeds", counts, `${state.seeds}`),
      element("label", { class: "tick" }, tick, "references"), reset);
  };
  document.getElementById("filters").addEventListener("input", (event) => {
    const { name, value: wanted, checked } = event.target;
    if (name === "references") state.references = checked;
    else if (name === "seeds") state.seeds = Number(wanted);
    else state.filters[name] = wanted;
    draw();
  });
  document.getElementById("filters").addEventListener("reset", (event) => {
    event.preventDefault();
    Object.assign(state, { references: true, seeds: 0, filters: { ...chosen } });
    drawFilters();
    draw();
  });
  const remember = () => {
    const words = new URLSearchParams();
    for (const [name, wanted] of Object.entries(state.filters)) if (wanted !== chosen[name]) words.set(name, wanted);
    if (state.seeds) words.set("seeds", state.seeds);
    if (!state.references) words.set("references", "no");
    if (state.sort !== "accuracy" || !state.down) words.set("sort", `${state.sort} ${state.down ? "down" : "up"}`);
    history.replaceState(null, "", words.size ? `#?${words}` : location.pathname + location.search);
  };
  const recall = () => {
    if (!location.hash.startsWith("#?")) return;
    const words = new URLSearchParams(location.hash.slice(2));
    for (const one of content.filters) if (words.has(one.name)) state.filters[one.name] = words.get(one.name);
    state.seeds = Number(words.get("seeds") ?? 0);
    state.references = words.get("references") !== "no";
    const [key, way] = (words.get("sort") ?? "accuracy down").split(" ");
    if (columns.some((column) => column.key === key)) Object.assign(state, { sort: key, down: way !== "up" });
  };

  // --- plots -----------------------------------------------------------------------------
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  // Beside the plot where there is room; else beneath it, and the plot grows by its lines.
  const layout = (id, count, more) => {
    const place = document.getElementById(id);
    const narrow = place.clientWidth < 640;
    const beneath = narrow ? 18 * count + 14 : 0;
    if (narrow) place.style.height = `${300 + beneath}px`;
    else place.style.removeProperty("height");
    return {
      margin: { l: 52, r: 12, t: 12, b: 64 + beneath }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: colour("--ink"), size: 12 }, hovermode: "closest", showlegend: true,
      ...more,
      legend: { font: { size: 11 }, ...(narrow ? { y: -60 / (300 - 12 - 56), yanchor: "top", x: 0 } : more.legend) },
      xaxis: { gridcolor: colour("--line"), zeroline: false, ...more.xaxis },
      yaxis: { gridcolor: colour("--line"), zeroline: false, ...more.yaxis },
    };
  };
  const options = { displaylogo: false, responsive: true, displayModeBar: false };
  const palette = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8c6bb1", "#7f7f7f", "#a6761d", "#1b9e77"];
  const labels = [...new Set(content.rows.map((row) => row.label))];
  const look = (row) => ({ color: row.color, symbol: row.symbol + (row.reference ? "-open" : ""), size: 9 });
  const drawPlots = () => {
    const rows = shown().filter((row) => row.accuracy);
    const alphas = content.filters.find((one) => one.name === "partition.alpha")?.values ?? [];
    const figure = document.getElementById("by-alpha-figure");
    figure.hidden = alphas.length < 2;  // before the other one takes its width
    const costly = rows.filter((row) => row.up_per_client && row.up_per_client[0] + row.down_per_client[0] > 0);
    Plotly.react("by-bytes", labels.filter((label) => costly.some((row) => row.label === label)).map((label) => {
      const mine = costly.filter((row) => row.label === label);
      return {
        name: label + mine[0].flag, mode: "markers", x: mine.map((row) => (row.up_per_client[0] + row.down_per_client[0]) / 1e6),
        y: mine.map((row) => 100 * row.accuracy[0]), text: mine.map((row) => row.scenario), marker: look(mine[0]),
        error_y: { type: "data", array: mine.map((row) => 100 * (row.accuracy[1] ?? 0)), thickness: 1, width: 3 },
        hovertemplate: "%{fullData.name}<br>%{text}<br>%{x:.3g} MB, %{y:.2f} %<extra></extra>",
      };
    }), layout("by-bytes", labels.length, { xaxis: { type: "log", dtick: "D2", title: { text: "MB per client, up and down" } }, yaxis: { title: { text: `${content.accuracy} accuracy (%)` } } }), options);
    if (figure.hidden) return;
    const lines = new Map();
    for (const row of shown("partition.alpha").filter((one) => one.accuracy)) {
      const others = varying.filter((one) => one.name !== "partition.alpha" && !state.filters[one.name]).map((one) => row.settings[one.name]);
      const name = [row.label + row.flag, ...others].join(", ");
      lines.set(name, [...(lines.get(name) ?? []), row]);
    }
    Plotly.react("by-alpha", [...lines].map(([name, mine]) => {
      mine.sort((a, b) => a.settings["partition.alpha"] - b.settings["partition.alpha"]);
      return {
        name, mode: "lines+markers", x: mine.map((row) => Number(row.settings["partition.alpha"])), y: mine.map((row) => 100 * row.accuracy[0]),
        marker: look(mine[0]), line: { color: look(mine[0]).color, dash: mine[0].reference ? "dot" : "solid", width: 1.5 },
        error_y: { type: "data", array: mine.map((row) => 100 * (row.accuracy[1] ?? 0)), thickness: 1, width: 3 },
      };
    }), layout("by-alpha", lines.size, { xaxis: { type: "log", title: { text: "Dirichlet α" }, tickvals: alphas.map(Number), ticktext: alphas }, yaxis: { title: { text: `${content.accuracy} accuracy (%)` } } }), options);
  };

  // --- a row's runs, a run's record ------------------------------------------------------
  const title = document.getElementById("panel-title");
  const body = document.getElementById("panel-body");
  const back = document.getElementById("panel-back");
  let opened = null;
  const show = (heading, returns, ...children) => {
    title.textContent = heading;
    back.hidden = !returns;
    body.replaceChildren(...children);
    if (!panel.open) panel.showModal();
    title.focus();
    panel.scrollTop = 0;
  };
  const seedOf = (run) => `seed ${run.seed}` + (run.split_seed === run.seed ? "" : `, split ${run.split_seed}`);
  const openRow = (row) => {
    opened = row;
    const rows = row.runs.map((id) => {
      const run = content.runs[id];
      const button = element("button", { type: "button", class: "open" }, seedOf(run));
      button.addEventListener("click", () => openRun(run));
      return element("tr", {}, element("td", {}, button), element("td", {}, typeof run.accuracy === "number" ? percent(run.accuracy) : missing),
        element("td", { class: "text" }, run.status + (run.reason ? `: ${run.reason}` : "")), element("td", { class: "text" }, run.id));
    });
    const head = element("tr", {}, ...["run", "accuracy %", "status", "id"].map((name) => element("th", { scope: "col", class: name === "accuracy %" ? "" : "text" }, name)));
    show([row.label, row.scenario].filter(Boolean).join(", "), false,
      element("div", { class: "scroll" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows))));
  };
  const folded = (text) => (text.length <= 400 ? text : element("details", {}, element("summary", {}, `${text.slice(0, 50)}…`), text));
  const facts = (values, prefix = "") => Object.entries(values ?? {}).flatMap(([key, item]) => {
    const name = prefix ? `${prefix}.${key}` : key;
    if (item === null || item === undefined) return [];
    if (Array.isArray(item) && item.length && item.every((one) => one && typeof one === "object" && !Array.isArray(one))) return item.flatMap((one, at) => facts(one, `${name}.${at}`));
    if (Array.isArray(item)) return [element("dt", {}, name), element("dd", {}, folded(item.every((one) => typeof one !== "object") ? item.join(", ") : JSON.stringify(item)))];
    if (typeof item === "object") return facts(item, name);
    return [element("dt", {}, name), element("dd", {}, folded(`${item}`))];
  });
  const part = (heading, values) => {
    const list = facts(values);
    return list.length ? element("section", {}, element("h3", {}, heading), element("dl", {}, ...list)) : null;
  };
  const openRun = (run) => {
    const children = [element("p", { class: "hint" }, `run ${run.id}, ${run.status}${run.reason ? `: ${run.reason}` : ""}`)];
    if (run.warnings?.length) children.push(element("ul", { class: "warned" }, ...run.warnings.map((text) => element("li", {}, text))));
    const curves = Object.entries(run.history ?? {});
    const [mine, clients] = [curves.filter(([name]) => !ofClient.test(name)), curves.filter(([name]) => ofClient.test(name))];
    if (mine.length) children.push(element("h3", {}, "History of the global model"), element("div", { class: "plot", id: "history" }));
    if (clients.length) children.push(element("h3", {}, "Clients' training"), chooser(clients), element("div", { class: "plot", id: "clients" }));
    if (run.history_place) children.push(element("p", { class: "hint" }, "A coarse curve of the accuracy; all of it is in ",
      element("a", { href: run.history_place }, "history.csv"), " beside the run's record."));
    if (run.grids?.length) {
      children.push(element("h3", {}, "Generated images"), run.grids.some((grid) => grid.linked) ? element("p", { class: "hint" },
        "This page holds the pictures of the first finished seed alone. These are links: they work where the experiment's folder lies around the page.") : "", element("div", { class: "grids" }, ...run.grids.map((grid) => element("figure", {},
        grid.linked ? element("a", { href: grid.linked }, grid.title) : element("img", { src: grid.source, alt: grid.title }),
        grid.linked ? null : element("figcaption", {}, grid.title)))));
    }
    children.push(part("Result", { accuracy: run.accuracy, teacher_accuracy: run.teacher_accuracy, ...run.metrics }),
      ...(run.generation ?? []).map((one) => part(`Generated images by ${one.extractor}`, one)),
      part("Communication", run.communication), part("Time", run.timing), part("Told by the method", run.details), part("Specification", run.spec), part("Made with", run.environment));
    if (run.place) children.push(element("p", {}, element("a", { href: run.place }, "record.json")));
    show(`${opened.label}, ${seedOf(run)}`, true, ...children.filter(Boolean));
    if (mine.length) drawHistory(mine);
    if (clients.length) drawClients(clients);
  };
  // One curve of all clients at a time: a run has dozens of them.
  const ofClient = /^client (\d+): (.*)$/;
  const chooser = (clients) => {
    const names = [...new Set(clients.map(([name]) => ofClient.exec(name)[2]))];
    const made = element("select", { id: "client-curve", "aria-label": "What is drawn of each client" }, ...names.map((name) => element("option", {}, name)));
    made.addEventListener("change", () => drawClients(clients));
    return element("div", { class: "controls" }, element("label", {}, "value", made));
  };
  const drawClients = (clients) => {
    const wanted = document.getElementById("client-curve").value;
    const traces = clients.filter(([name]) => ofClient.exec(name)[2] === wanted).map(([name, points]) => ({
      name: `client ${ofClient.exec(name)[1]}`, x: points.map((point) => point[0]), y: points.map((point) => point[1]), mode: "lines", line: { width: 1.5 },
    }));
    Plotly.react("clients", traces, layout("clients", traces.length, { colorway: palette, xaxis: { title: { text: "step" } }, yaxis: { title: { text: wanted.replaceAll("_", " ") } } }), options);
  };
  const drawHistory = (curves) => {
    const main = curves.filter(([name]) => /accuracy$/.test(name));
    const others = curves.filter(([name]) => !/accuracy$/.test(name));
    const trace = ([name, points], axis, visible) => ({
      name, x: points.map((point) => point[0]), y: points.map((point) => (axis === "y" ? 100 : 1) * point[1]), mode: "lines", yaxis: axis, visible,
      line: { width: 1.5, dash: axis === "y" ? "solid" : "dot" },
    });
    Plotly.newPlot("history", [...main.map((one) => trace(one, "y", true)), ...others.map((one, at) => trace(one, "y2", main.length && at > 0 ? "legendonly" : true))],
      layout("history", curves.length, { colorway: palette, xaxis: { title: { text: "step" } }, yaxis: { title: { text: "accuracy (%)" } },
        legend: { font: { size: 11 }, orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
        yaxis2: { overlaying: "y", side: "right", automargin: true, showgrid: false, zeroline: false, title: { text: "loss" }, ...(others.length ? {} : { visible: false }) } }), options);
  };
  back.addEventListener("click", () => openRow(opened));
  document.getElementById("panel-close").addEventListener("click", () => panel.close());
  panel.addEventListener("click", (event) => { if (event.target === panel) panel.close(); });

  const draw = () => { drawBoard(); drawPlots(); remember(); };
  recall();
  drawFilters();
  drawBoard();
  drawPlots();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawPlots);
})();
