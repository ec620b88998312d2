'use strict';
// The page asks for each image by itself, and stores answers in this tab alone.

const facts = JSON.parse(document.getElementById('facts').textContent);
const element = (id) => document.getElementById(id);
// Of each image: its name, its bytes, its card, what is said of it, the edits
// that were made before, and how often it was asked for.
const images = [];
const waiting = [];
// Requests at once: the server computes as many at a time as it has cores.
const AT_ONCE = 2;
let running = 0;

function make(tag, text = '', className = '') {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function edits() {
  const query = new URLSearchParams();
  for (const name of ['rotation', 'brightness', 'contrast', 'scale']) {
    query.set(name, element(name).value);
  }
  for (const name of ['mirror', 'flip']) {
    query.set(name, element(name).checked ? '1' : '0');
  }
  return query;
}

// The edits that change something, for people and tables.
function inWords(query) {
  const nothing = {
    rotation: '0', brightness: '1', contrast: '1', scale: '1.0', mirror: '0', flip: '0',
  };
  return [...query].filter(([name, value]) => value !== nothing[name])
    .map(([name, value]) => `${name} ${value}`).join('; ');
}

function add(files) {
  for (const file of files) {
    const card = element('card').content.cloneNode(true).firstElementChild;
    card.querySelector('h3').textContent = file.name;
    element('answers').append(card);
    const image = { name: file.name, file, card, said: null, reason: '', edits: '', asked: 0 };
    images.push(image);
    waiting.push(image);
  }
  work();
}

function work() {
  while (running < AT_ONCE && waiting.length) {
    running += 1;
    ask(waiting.shift()).finally(() => {
      running -= 1;
      work();
    });
  }
  tell();
}

async function ask(image) {
  const query = edits();
  const turn = image.asked + 1;
  Object.assign(image, { said: null, reason: '', edits: inWords(query), asked: turn });
  show(image);
  let said = null;
  let reason = '';
  try {
    if (image.file.size > facts.most_bytes) {
      throw new Error(`larger than ${facts.most_bytes / 2 ** 20} MiB`);
    }
    const response = await fetch(`answer?${query}`, {
      method: 'POST',
      headers: { 'content-type': 'application/octet-stream' },
      body: image.file,
    });
    const content = await response.json().catch(() => null);
    if (!response.ok || !content) {
      throw new Error(content?.error ?? `the server failed (${response.status})`);
    }
    said = content;
  } catch (error) {
    reason = error instanceof TypeError
      ? 'the server does not answer: is it still running?'
      : error.message;
  }
  // An older answer that comes late is none.
  if (turn !== image.asked) return;
  Object.assign(image, { said, reason });
  show(image);
}

function tell() {
  const done = images.filter((image) => image.said).length;
  const refused = images.filter((image) => image.reason).length;
  let text = 'No image yet.';
  if (images.length) {
    text = `${done} of ${images.length} predicted`;
    text += refused ? `, ${refused} refused.` : '.';
  }
  element('status').textContent = text;
  element('downloads').hidden = !images.length;
  const field = element('opacity-field');
  if (field) field.hidden = !done;
}

function picture(url, alt, caption) {
  const figure = make('figure');
  const stack = make('div', '', 'stack');
  const image = make('img');
  image.src = url;
  image.alt = alt;
  stack.append(image);
  figure.append(stack, make('figcaption', caption));
  return figure;
}

function show(image) {
  const { card, said } = image;
  const pictures = card.querySelector('.pictures');
  const text = card.querySelector('.said');
  pictures.replaceChildren();
  text.replaceChildren();
  card.querySelector('.reason').textContent = image.reason;
  if (!said) return;
  const size = [`${said.width} x ${said.height} px`, image.edits].filter(Boolean).join('; ');
  const shown = picture(said.picture, `${image.name}, as it was predicted`, size);
  pictures.append(shown);
  if (said.cells) {
    const layer = make('img', '', 'layer');
    layer.src = said.layer;
    layer.alt = 'Cells, outlined';
    layer.style.opacity = element('opacity').value;
    shown.querySelector('.stack').append(layer);
    const share = (100 * said.cell_share).toFixed(1);
    text.append(make('p', `${said.cells.length} white cells on ${share} % of the image, `
      + `median diameter ${said.median_diameter.toFixed(1)} px`));
    for (const kind of ['mask', 'instances']) {
      const link = make('a', `Download ${kind}`);
      link.href = said[kind];
      link.download = `${stem(image.name)}-${kind}.png`;
      text.append(link, ' ');
    }
  }
  if (said.heat) {
    pictures.append(picture(said.heat, 'Where the classifier looks',
      'Bright: where the classifier sees its answer'));
  }
  if (said.probabilities) text.prepend(...classes(said));
  text.prepend(...said.warnings.map((warning) => make('p', warning)));
}

function answer(said) {
  const largest = Math.max(...said.probabilities);
  return facts.class_names[said.probabilities.indexOf(largest)];
}

function classes(said) {
  const flags = make('p');
  flags.append(make('span', answer(said), 'answer'), ' ');
  for (const flag of said.flags) {
    flags.append(make('span', flag, flag === 'ok' ? 'ok' : 'flag'), ' ');
  }
  const table = make('table');
  table.append(make('caption', 'Probability'));
  said.probabilities.forEach((probability, i) => {
    const row = table.insertRow();
    const head = make('th', facts.class_names[i]);
    head.scope = 'row';
    const bar = make('meter');
    bar.value = probability;
    bar.setAttribute('aria-label', facts.class_names[i]);
    row.append(head);
    row.insertCell().append(bar);
    row.insertCell().textContent = `${(100 * probability).toFixed(1)} %`;
  });
  return [flags, table];
}

function stem(name) {
  return name.replace(/\.[^.]*$/, '');
}

function save(name, content, type) {
  const link = make('a');
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function csv(rows) {
  const field = (value) => {
    const text = String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return rows.map((row) => `${row.map(field).join(',')}\r\n`).join('');
}

function number(value) {
  return Number.isInteger(value) ? value : Number(value.toPrecision(6));
}

// The columns of predictions.csv, and of counts.csv where there are cells.
function table() {
  const shares = facts.class_names.map((name) => `p_${name}`);
  const header = ['path'];
  if (shares.length) header.push('predicted_class', ...shares, 'entropy', 'flags');
  if (facts.cell_fields.length) header.push('cells', 'cell_share', 'median_diameter');
  const rows = [[...header, 'edits', 'reason']];
  for (const { name, said, reason, edits: made } of images) {
    const row = [name];
    if (said && said.probabilities) {
      row.push(answer(said), ...said.probabilities.map(number));
      row.push(number(said.entropy), said.flags.join(';'));
    }
    if (said && said.cells) {
      row.push(said.cells.length, number(said.cell_share), number(said.median_diameter));
    }
    while (row.length < header.length) row.push('');
    rows.push([...row, made, reason]);
  }
  return csv(rows);
}

function cells() {
  const rows = [['path', ...facts.cell_fields]];
  for (const { name, said } of images) {
    for (const cell of (said && said.cells) || []) {
      rows.push([name, ...cell.map(number)]);
    }
  }
  return csv(rows);
}

function report() {
  // Of the page that is open: the server may have been stopped.
  const rules = [...document.styleSheets].flatMap((own) => [...own.cssRules]);
  const page = document.implementation.createHTMLDocument(document.title);
  page.documentElement.lang = 'en';
  const meta = page.createElement('meta');
  meta.setAttribute('charset', 'utf-8');
  const sheet = page.createElement('style');
  sheet.textContent = rules.map((rule) => rule.cssText).join('\n');
  page.head.prepend(meta);
  page.head.append(sheet);
  const main = page.createElement('main');
  for (const part of ['h1', '.statement', '#status', '#answers', 'footer']) {
    main.append(page.importNode(document.querySelector(part), true));
  }
  main.querySelectorAll('a').forEach((link) => link.remove());
  page.body.append(main);
  return `<!doctype html>\n${page.documentElement.outerHTML}`;
}

function connect() {
  const drop = element('drop');
  element('files').addEventListener('change', (event) => {
    add(event.target.files);
    event.target.value = '';
  });
  for (const kind of ['dragover', 'dragleave', 'drop']) {
    // Anywhere on the page: a file that misses must not be opened in its place.
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle('over', kind === 'dragover');
      if (kind === 'drop') add(event.dataTransfer.files);
    });
  }
  document.querySelectorAll('.example').forEach((button) => {
    button.addEventListener('click', async () => {
      const name = `${button.dataset.number}.png`;
      const response = await fetch(`examples/${name}`);
      add([new File([await response.blob()], `smear-${name}`)]);
    });
  });
  document.querySelectorAll('#edits output').forEach((output) => {
    const input = element(output.htmlFor.value);
    input.addEventListener('input', () => { output.value = input.value; });
  });
  element('again').addEventListener('click', () => {
    waiting.push(...images.filter((image) => !waiting.includes(image)));
    work();
  });
  element('clear').addEventListener('click', () => {
    images.length = 0;
    waiting.length = 0;
    element('answers').replaceChildren();
    tell();
  });
  element('download-csv').addEventListener('click', () => save('predictions.csv', table(), 'text/csv'));
  element('download-report').addEventListener('click', () => save('report.html', report(), 'text/html'));
  if (facts.cell_fields.length) {
    element('download-cells').addEventListener('click', () => save('cells.csv', cells(), 'text/csv'));
    element('download-masks').addEventListener('click', () => {
      document.querySelectorAll('a[download$="-mask.png"]').forEach((link) => link.click());
    });
    element('opacity').addEventListener('input', (event) => {
      document.querySelectorAll('.layer').forEach((layer) => { layer.style.opacity = event.target.value; });
    });
  }
}

connect();
