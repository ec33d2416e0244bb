// The few things that are done to the document. Texts are set as texts, never as HTML, and only when they change: so what
// a screen reader is told to listen to stays silent while nothing happens.

export const $ = id => document.getElementById(id);

export function say(node, text) {
  if (typeof node === 'string') node = $(node);
  if (node.textContent !== text) node.textContent = text;
}

export function show(node, visible) {
  if (typeof node === 'string') node = $(node);
  if (node.hidden === visible) node.hidden = !visible;
}

export function mark(node, name, value) {
  if (typeof node === 'string') node = $(node);
  if (node.dataset[name] !== value) node.dataset[name] = value;
}

// el makes an element: el('p', {class: 'thin', title: 'x'}, 'text', child).
export function el(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.filter(child => child !== null && child !== undefined));
  return node;
}

// svg makes a drawing of paths in a square of 24.
export function svg(className, ...paths) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  node.setAttribute('viewBox', '0 0 24 24');
  node.setAttribute('class', className);
  node.setAttribute('aria-hidden', 'true');
  for (const d of paths) {
    const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
    path.setAttribute('d', d);
    node.append(path);
  }
  return node;
}

let hiding;

// toast tells what became of something that was asked for.
export function toast(text) {
  const node = $('toast');
  node.textContent = text;
  node.hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => { node.hidden = true; }, 6000);
}
