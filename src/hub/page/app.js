// The frame of the page: which page is shown, keys, theme. Everything under `#/`, so that the hub serves one page.

import { $, ask, evOut, h, keys, left, main, setNow, site, title } from './ui.js';
import { begin } from './live.js';
import { fleetPage } from './fleet.js';
import { nodePage } from './node.js';
import { alertsPage } from './alerts.js';
import { eventsPage } from './events.js';
import { jobPage } from './job.js';
import { earningsPage } from './earned.js';
import { whoAmI } from './people.js';

function lost() {
  title('Nothing here');
  main.replaceChildren(h('div.page', null, h('div.phead', null, h('h1', null, 'Nothing here')), h('p', null, h('a.a', { href: '#/fleet' }, 'Back to the fleet'))));
}

/// What stands between two slashes of the address; `null` if it is no text.
function plain(part) { try { return decodeURIComponent(part ?? ''); } catch { return null; } }

let shownOnce = false;
function where() {
  const [path, search = ''] = location.hash.replace(/^#\/?/, '').split(/\?(.*)/s);
  const [page = '', ...rest] = path.split('/');
  return { page: page || 'fleet', a: plain(rest[0]), b: plain(rest[1]), search };
}
function route() {
  left();
  const { page, a, b, search } = where(), tab = page === 'node' || page === 'job' ? 'fleet' : page;
  for (const link of document.querySelectorAll('.top nav a')) {
    if (link.hash === '#/' + tab) link.setAttribute('aria-current', 'page'); else link.removeAttribute('aria-current');
  }
  $('#hint').replaceChildren();
  if (page === 'fleet') fleetPage(search);
  else if (page === 'node' && a) nodePage(a);
  else if (page === 'job' && a && b) jobPage(a, b);
  else if (page === 'alerts') alertsPage();
  else if (page === 'events') eventsPage(search);
  else if (page === 'earnings') earningsPage(search);
  else lost();
  if (shownOnce) (main.querySelector('[tabindex="0"]') || main).focus({ preventScroll: true });
  shownOnce = true;
}
addEventListener('hashchange', route);

const help = $('#help');
let wentAt = 0;
const GO = { f: '#/fleet', a: '#/alerts', e: '#/events', i: '#/earnings' };
addEventListener('keydown', (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey || help.open) return;
  if (/INPUT|SELECT|TEXTAREA/.test(e.target.tagName)) {
    if (e.key === 'Escape' && !(e.target.value && e.target.type === 'search')) { e.target.blur(); ($('.grid') || main).focus(); }
    return;
  }
  if (e.target.closest?.('button,a') && (e.key === 'Enter' || e.key === ' ')) return;
  if (Date.now() - wentAt < 900 && GO[e.key]) { wentAt = 0; location.hash = GO[e.key]; e.preventDefault(); return; }
  if (e.key === 'g') { wentAt = Date.now(); return; }
  if (e.key === '?') { help.showModal(); return; }
  if (e.key === 't') { theme(); return; }
  if (e.key === 'u') { const { page, a } = where(); location.hash = page === 'job' ? '#/node/' + encodeURIComponent(a) : '#/fleet'; return; }
  const scrolls = /Arrow|Page|Home|End/.test(e.key) && !e.target.closest?.('.grid') && !(document.activeElement === document.body && $('.grid'));
  if (!scrolls && keys.page(e.key)) e.preventDefault();
});
document.addEventListener('click', (e) => { const cell = e.target.closest('[data-ev]'); if (cell) evOut.textContent = cell.dataset.ev; });

const THEMES = ['auto', 'dark', 'light'];
let chosen = 'auto';
try { chosen = localStorage.getItem('theme') || 'auto'; } catch { /* a private window keeps nothing */ }
function setTheme(name) {
  chosen = THEMES.includes(name) ? name : 'auto';
  if (chosen === 'auto') delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = chosen;
  $('#theme').replaceChildren(h('span', null, 'Theme: '), chosen);
  try { localStorage.setItem('theme', chosen); } catch { /* as above */ }
}
const theme = () => setTheme(THEMES[(THEMES.indexOf(chosen) + 1) % THEMES.length]);
$('#theme').addEventListener('click', theme);
$('#keys').addEventListener('click', () => help.showModal());
$('#skip').addEventListener('click', (e) => { e.preventDefault(); main.focus(); });
setTheme(chosen);

route();
whoAmI();
ask('/api/site').then((said) => {
  Object.assign(site, said);
  setNow(said.now);
  $('#brand').title = 'lamda-node hub ' + said.version;
  dispatchEvent(new Event('site')); // what is late is known from now on
}).catch(() => { /* the page says itself that the hub does not answer */ }).finally(begin);
