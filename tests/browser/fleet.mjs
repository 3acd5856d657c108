// The fleet of 10,000 nodes: how soon it is there, order, filter, live values, keys, hostile names.

const rows = (page) => page.$$eval('.row:not([hidden])', (all) => all
  .sort((a, b) => a.getAttribute('aria-rowindex') - b.getAttribute('aria-rowindex'))
  .map((row) => ({ index: Number(row.getAttribute('aria-rowindex')), state: row.children[0].textContent, name: row.children[1].textContent, own: row.children[7].textContent, busy: row.getAttribute('aria-busy') })));
const isThere = () => document.querySelectorAll('.row:not([hidden])').length > 20 && !document.querySelector('.row.outline:not([hidden])');
const quantile = (all, part) => all.toSorted((a, b) => a - b)[Math.min(all.length - 1, Math.floor(all.length * part))];
const evidence = (page) => page.$eval('#ev', (it) => it.textContent);

export async function fleet(tools) {
  await begins(tools);
  const page = await tools.open();
  await page.goto(tools.base);
  await tools.until(page, 'the rows come', isThere);
  tools.check(await page.$eval('.again', (it) => it.hidden), 'an order that is new is not offered anew');
  await orders(page, tools);
  await filters(page, tools);
  await scrolls(page, tools);
  await lives(page, tools);
  await keys(page, tools);
  await hostile(page, tools);
  await ends(page, tools);
}

/// From the navigation to the painted rows, each time with a fresh profile.
async function begins({ base, check, open, until }) {
  const took = [];
  for (let k = 0; k < 7; k++) {
    const page = await open();
    await page.goto(base, { waitUntil: 'domcontentloaded' });
    await until(page, 'the page paints rows', () => performance.getEntriesByName('painted').length > 0 && document.querySelectorAll('.row').length > 20);
    took.push(await page.evaluate(() => performance.getEntriesByName('painted')[0].startTime));
    await page.browserContext().close();
  }
  const page = await open();
  await page.emulateCPUThrottling(4);
  await page.goto(base, { waitUntil: 'domcontentloaded' });
  await until(page, 'the page paints rows on a slow machine', () => performance.getEntriesByName('painted').length > 0);
  const slow = await page.evaluate(() => performance.getEntriesByName('painted')[0].startTime);
  await page.browserContext().close();
  console.log(`the same with a quarter of the CPU: ${Math.round(slow)} ms`);
  console.log(`navigation to rows painted, 10,000 nodes: median ${Math.round(quantile(took, .5))} ms, slowest ${Math.round(Math.max(...took))} ms of ${took.length}`);
  // Beside other builds and tests; what the figure is worth, docs say.
  check(quantile(took, .5) < 3_000, 'the page is there within 3 s');
}

async function orders(page, { check, until, text }) {
  check(await page.title() === 'Fleet · Fleet of <Ann & Bo>', 'the title: ' + await page.title());
  check(await text(page, '#brand') === 'Fleet of <Ann & Bo>', 'the brand');
  const count = await page.$eval('.grid', (grid) => grid.getAttribute('aria-rowcount'));
  check(count === '10001', 'aria-rowcount ' + count);
  const first = await rows(page);
  const states = first.map((row) => row.state);
  check(states.slice(0, 2).join() === 'clash,clash' && states.slice(2, 10).every((s) => s === 'down') && states[10] === 'zombie', 'trouble is first: ' + states.slice(0, 12));
  await until(page, 'late clocks are marked', () => document.querySelector('[aria-rowindex="4"] .c-own').classList.contains('off') && !document.querySelector('[aria-rowindex="2"] .c-own').classList.contains('off'));
  const chips = await page.$$eval('.chips .chip', (all) => all.map((chip) => chip.textContent));
  check(chips[0] === '9,981 of 10,000 up' && chips[1] === '8 down', 'chips: ' + chips);
  const begun = Date.now();
  await page.click('[data-k=name] button');
  await until(page, 'sorted by name', () => document.querySelector('[aria-rowindex="2"]')?.children[1].textContent.startsWith('<img'));
  console.log(`a sort, from click to rows: ${Date.now() - begun} ms`);
  await page.click('[data-k=name] button');
  await until(page, 'sorted by name, downwards', () => document.querySelector('[aria-rowindex="2"]')?.children[1].textContent === 'sin-e-250');
  check(page.url().includes('sort=name') && page.url().includes('dir=desc'), 'the order is in the address: ' + page.url());
  check(await page.$eval('[data-k=name]', (it) => it.getAttribute('aria-sort')) === 'descending', 'aria-sort');
  // Somebody else opens that address.
  await page.reload();
  await until(page, 'the address brings the order', () => document.querySelector('[aria-rowindex="2"]')?.children[1].textContent === 'sin-e-250');
  await page.click('[data-k=standing] button');
  await until(page, 'back to trouble', () => document.querySelector('[aria-rowindex="2"]')?.children[0].textContent === 'clash');
}

async function filters(page, { check, until }) {
  const shown = (n) => until(page, n + ' shown', (n) => document.querySelector('.grid')?.getAttribute('aria-rowcount') === String(n + 1), n);
  await page.focus('.grid');
  await page.keyboard.press('/');
  await page.keyboard.type('tag:eu state:down');
  await shown(7);
  check((await page.$$eval('.cnt', (all) => all[0].textContent)) === '7 shown', 'the count is said');
  check(page.url().includes('q='), 'the filter is in the address');
  await page.keyboard.press('Enter');
  await page.keyboard.press('Escape');
  await shown(10_000);
  await page.click('.chip[data-s=zombie]');
  await shown(5);
  check(await page.$eval('.chip[data-s=zombie]', (it) => it.getAttribute('aria-pressed')) === 'true', 'the chip is pressed');
  await page.click('.chip[data-s=zombie]');
  await shown(10_000);
  const tag = await page.evaluateHandle(() => [...document.querySelectorAll('.tags .chip')].find((it) => it.textContent === 'sa'));
  await tag.click();
  await shown(1_250);
  await page.focus('.grid');
  await page.keyboard.press('Escape');
  await shown(10_000);
}

async function scrolls(page, { check, until }) {
  await page.focus('.grid');
  await page.keyboard.press('End');
  await until(page, 'the last row', () => [...document.querySelectorAll('[aria-rowindex="10001"]')].some((row) => row.getAttribute('aria-selected') === 'true' && row.children[1].textContent === 'sin-e-250'));
  for (const place of [7_500, 1_200, 1_500, 4_999]) {
    await page.$eval('.grid', (grid, y) => { grid.scrollTop = y; }, place * 28);
    await until(page, 'rows at ' + place, (place) => { const row = document.querySelector(`[aria-rowindex="${place + 7}"]`); return row && !row.hidden && row.children[1].textContent && !document.querySelector('.row.outline:not([hidden])'); }, place);
  }
  const seen = await rows(page);
  check(seen.every((row, k) => k === 0 || row.index === seen[k - 1].index + 1), 'rows follow each other');
  check(new Set(seen.map((row) => row.name)).size === seen.length, 'no row is there twice');
  check(await page.$$eval('.row', (all) => all.length) < 120, 'only the rows in view exist');
  await page.focus('.grid');
  await page.keyboard.press('Home');
  await until(page, 'the first row', () => document.querySelector('[aria-rowindex="2"][aria-selected=true]') && !document.querySelector('.row.outline:not([hidden])'));
}

async function lives(page, { check, until, ask }) {
  await until(page, 'the mark says live', () => document.querySelector('#live').textContent === 'live');
  const took = [];
  for (let k = 0; k < 25; k++) {
    const token = 'seen-' + k;
    const pixel = page.evaluate((token) => new Promise((done) => {
      const cell = document.querySelector('[aria-rowindex="12"] .c-meta');
      const look = () => { if (cell.textContent === token) { observer.disconnect(); requestAnimationFrame(() => done(Date.now())); } };
      const observer = new MutationObserver(look);
      observer.observe(cell, { subtree: true, characterData: true, childList: true });
      setTimeout(() => done(Infinity), 15_000);
    }), token);
    const name = await page.$eval('[aria-rowindex="12"]', (row) => row.children[1].textContent);
    const begun = Date.now();
    await ask('about', { name, text: token });
    took.push(await pixel - begun);
    if (!Number.isFinite(took.at(-1))) break;
  }
  console.log(`change to pixel: median ${quantile(took, .5)} ms, p99 ${quantile(took, .99)} ms of ${took.length}`);
  check(Math.max(...took) < 3_000, 'a change is seen within 3 s: ' + took);
  const before = await rows(page);
  const victim = before.find((row) => row.state === 'up').name;
  await ask('down', { name: victim, text: 'the test says so' });
  await until(page, 'a node goes down in its place', (victim) => [...document.querySelectorAll('.row:not([hidden])')].some((row) => row.children[1].textContent === victim && row.children[0].textContent === 'down'), victim);
  const after = await rows(page);
  check(after.map((row) => row.name).join() === before.map((row) => row.name).join(), 'no row moves by itself');
  await until(page, 'the chip counts it', () => document.querySelector('.chip[data-s=down]').textContent === '9 down');
  await until(page, 'sorting again is offered', () => document.querySelector('.again:not([hidden])'));
  await page.click('.again');
  await until(page, 'sorted again', (victim) => [...document.querySelectorAll('.row:not([hidden])')].slice(0, 60).some((row) => row.children[1].textContent === victim && Number(row.getAttribute('aria-rowindex')) < 13), victim);
}

async function keys(page, { check, until, text }) {
  await page.focus('.grid');
  await page.keyboard.press('Home');
  await page.keyboard.press('j');
  await page.keyboard.press('j');
  await page.keyboard.press('k');
  check(await page.$eval('[aria-selected=true]', (row) => row.getAttribute('aria-rowindex')) === '3', 'j and k choose a row');
  check(await page.$eval('.grid', (grid) => document.getElementById(grid.getAttribute('aria-activedescendant'))?.getAttribute('aria-selected')) === 'true', 'the chosen row is the active one');
  for (let k = 0; k < 7; k++) await page.keyboard.press('l');
  check((await evidence(page)).includes('POST /api/heartbeat at 20'), 'evidence of the own beat: ' + await evidence(page));
  await page.keyboard.press('l');
  check(/message seq 48,00\d,\d+/.test(await evidence(page)) || (await evidence(page)).includes('never heard'), 'evidence of NATS: ' + await evidence(page));
  await page.keyboard.press('h');
  check((await evidence(page)).includes('heartbeat'), 'h goes back');
  const name = await page.$eval('[aria-selected=true]', (row) => row.children[1].textContent);
  await page.keyboard.press('Enter');
  await until(page, 'Enter opens the node', (name) => document.querySelector('h1')?.textContent === name, name);
  await page.keyboard.press('j');
  await until(page, 'j goes to the next node', (name) => document.querySelector('.page h1') && document.querySelector('h1').textContent !== name, name);
  await page.keyboard.press('k');
  await until(page, 'k goes back', (name) => document.querySelector('h1')?.textContent === name, name);
  await page.keyboard.press('u');
  await until(page, 'u goes up', () => document.querySelector('.grid'));
  await until(page, 'the place is kept', (name) => document.querySelector('[aria-selected=true]')?.children[1].textContent === name, name);
  for (const [key, title] of [['a', 'Alerts'], ['e', 'Events'], ['f', 'Fleet']]) {
    await page.keyboard.press('g');
    await page.keyboard.press(key);
    await until(page, 'g ' + key, (title) => document.title.startsWith(title + ' ·'), title);
  }
  const themes = [];
  for (let k = 0; k < 3; k++) { await page.keyboard.press('t'); themes.push(await text(page, '#theme')); }
  check(themes.join() === 'Theme: dark,Theme: light,Theme: auto', 'themes: ' + themes);
  await page.keyboard.press('?');
  check(await page.$eval('#help', (it) => it.open), '? opens the list of keys');
  await page.keyboard.press('Escape');
  check(!await page.$eval('#help', (it) => it.open), 'Esc closes it');
}

async function hostile(page, { base, check, until, ask, hostile: name }) {
  await page.goto(`${base}/#/fleet?q=onerror`);
  await until(page, 'the hostile name is a text', (name) => document.querySelector('[aria-rowindex="2"]')?.children[1].textContent === name, name);
  await page.focus('.grid');
  await page.keyboard.press('Enter');
  await until(page, 'its page', (name) => document.querySelector('h1')?.textContent === name, name);
  await until(page, 'its history', () => document.querySelector('.hl small'));
  check(name.includes('\u202e') && !(await page.title()).includes('\u202e'), 'a name turns nothing in the title');
  check(await page.$eval('.hl small', (it) => it.textContent) === '<b>it</b>', 'a reason is a text');
  await page.goto(`${base}/#/alerts`);
  await until(page, 'an alert with a hostile title', (name) => [...document.querySelectorAll('.al h3')].some((it) => it.textContent === name), name);
  // A mark in the name that turns the direction of text stays within the name.
  const order = await page.$$eval('.al dd.a', (all) => [...all.find((it) => it.textContent.includes('onerror')).querySelectorAll('a')].map((it) => it.getBoundingClientRect().left));
  check(order.length === 2 && order[0] !== order[1] && await page.$eval('.al dd.a', (it) => getComputedStyle(it.querySelector('a')).unicodeBidi) === 'isolate', 'a name turns nothing beside it');
  check((await page.$$eval('.al', (all) => all.map((it) => it.textContent))).some((it) => it.includes('quiet hours')), 'what is held back says why');
  await page.goto(`${base}/#/events`);
  await until(page, 'events', () => document.querySelectorAll('.evl tbody tr').length > 50);
  check((await page.$eval('.wt', (it) => it.textContent)).includes('<script>alert(2)</script>'), 'a message is a text');
  await ask('tell', { name: '0x' + '0'.repeat(37) + '262', text: 'fresh <i>news</i>' });
  await until(page, 'an event comes by itself', () => document.querySelector('.evl tbody tr .wt')?.textContent.includes('fresh <i>news</i>'));
  check(await page.$$eval('main img, main script, main i:not([class])', (all) => all.length) === 0, 'no markup came of a text');
  await page.goto(`${base}/#/job/${encodeURIComponent('x'.repeat(300))}/%E0%A4%A`);
  await until(page, 'an address that is none', () => document.querySelector('h1')?.textContent === 'Nothing here');
}

/// The hub ends: the page says so, and keeps what it has.
async function ends(page, { base, check, until, ask }) {
  await page.goto(`${base}/#/fleet`);
  await until(page, 'the fleet again', isThere);
  page.expected = true;
  await ask('end', {});
  await until(page, 'the mark says that it is not connected', () => document.querySelector('#live').textContent === 'not connected');
  check((await rows(page)).length > 20, 'what is known stays');
}
