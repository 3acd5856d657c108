// A job's usage as plots, its live log, and what nodes earn.

const line = (seq, text, stream = 'stdout') => JSON.stringify({ seq, stream, line: text, timestamp: new Date().toISOString() });

export async function work(tools) {
  const page = await tools.open();
  await usage(page, tools);
  await log(page, tools);
  await day(page, tools);
  await earnings(page, tools);
}

async function usage(page, { base, check, until, shot }) {
  await page.goto(`${base}/#/job/ams-c-111/job-2`);
  await until(page, 'the plots come', () => document.querySelectorAll('.plot').length === 8);
  const plots = await page.$$eval('.plot', (all) => all.map((it) => ({ text: it.querySelector('figcaption').textContent + (it.querySelector('p')?.textContent ?? ''), gaps: it.querySelectorAll('.gap').length, lines: it.querySelector('.line')?.getAttribute('d').split('M').length - 1 })));
  check(plots[0].text.startsWith('CPU2.') && plots[0].text.includes('peak 3.67 cores'), 'CPU says its mean and peak: ' + plots[0].text);
  check(plots[0].gaps === 1 && plots[0].lines === 2, 'where nobody looked is a gap, and no line over it: ' + JSON.stringify(plots[0]));
  check(plots[1].text.includes('Memory') && plots[1].text.includes('GiB'), 'memory: ' + plots[1].text);
  check(plots[7].text === 'Powerunknownunknown: not allowed to the node’s user', 'what is not known says why: ' + plots[7].text);
  check(await page.$eval('.plot svg', (it) => /^CPU: mean .*, peak .* from /.test(it.getAttribute('aria-label'))), 'a plot is told to who sees none');
  check(await page.$$eval('[style]', (all) => all.every((it) => !it.closest('.plot'))), 'no plot has an inline style');
  check((await page.$eval('main', (it) => it.textContent)).includes('One batch never came'), 'what is missing is counted');
  await page.click('.plot');
  check((await page.$eval('#ev', (it) => it.textContent)).includes('stream USAGE'), 'evidence of a plot');
  await shot(page, 'work-usage');
}

async function log(page, { base, check, until, ask, shot }) {
  const write = async (text) => (await ask('log', { text })).text();
  const says = (text) => until(page, 'the log says ' + text, (text) => document.querySelector('.log').textContent.includes(text), text);
  await until(page, 'the log waits for the hub', () => document.querySelector('.logbar').textContent.includes('does not hear it now'));
  check(await write(line(1, 'first <b>line</b>')) === '1', 'one log is listened to');
  await until(page, 'it says that it is live', () => /live|line/.test(document.querySelector('.logbar').textContent));
  await says('first <b>line</b>');
  check(await page.$$eval('.log b', (all) => all.length) === 0, 'a line is a text');
  await write(line(2, '10 %\r55 %\r100 %'));
  await says('100 %');
  check(!(await page.$eval('.log', (it) => it.textContent)).includes('55 %'), 'a progress bar shows its last step');
  await write(line(3, '\u001b[31mred\u001b[0m\u0007', 'stderr'));
  await says('red');
  const red = await page.$eval('.log .err', (it) => it.textContent);
  check(/!red$/.test(red), 'controls are taken out, and stderr is marked: ' + JSON.stringify(red));
  await write(JSON.stringify({ seq: 3, stream: 'stdout', line: 'told twice', timestamp: '2026-01-01T00:00:00.000Z' }));
  await write(line(9, 'after a gap'));
  await says('5 lines are missing here');
  await write(JSON.stringify({ dropped: 240 }));
  await until(page, 'what was dropped is counted', () => document.querySelector('.logbar').textContent.includes('240 lines are missing'));
  for (let k = 10; k < 60; k++) await write(line(k, 'line ' + k));
  await says('line 59');
  check(await page.$eval('.log', (it) => it.scrollHeight - it.scrollTop - it.clientHeight < 30), 'it stays at its end');
  await page.$eval('.log', (it) => { it.scrollTop = 0; });
  await write(line(60, 'line 60'));
  await says('line 60');
  check(await page.$eval('.log', (it) => it.scrollTop) === 0, 'who reads what was before is left there');
  await shot(page, 'work-log');
  await write(line(1, 'of the second attempt'));
  await says('of the second attempt');
  check((await page.$eval('.log', (it) => it.textContent)).includes('begun anew'), 'a new attempt is said');
  const counted = await page.$eval('.logbar', (it) => it.textContent);
  check(counted.includes('56 lines;'), 'lines are counted, and what is told twice is not: ' + counted);
  await page.evaluate(() => [...document.querySelectorAll('.logbar button')][0].click());
  await until(page, 'it is not followed', () => document.querySelector('.logbar').textContent.includes('not followed'));
  await until(page, 'the tab has its stream again', () => document.querySelector('#live').textContent === 'live');
  for (let k = 0; k < 200 && await write(line(61, 'unseen')) !== '0'; k++);
  check(await write(line(62, 'unseen')) === '0', 'nobody looks, so the hub does not listen');
  check(!(await page.$eval('.log', (it) => it.textContent)).includes('unseen'), 'what is not followed is not shown');
  await page.goto(`${base}/#/job/ams-c-111/job-1`);
  await until(page, 'a job that is over has no live log', () => !document.querySelector('.log') && document.querySelector('main').textContent.includes('No log was kept of it'));
  const used = await page.$eval('#h-u', (it) => it.closest('section').textContent);
  check(used.includes('cpu20 min 00 s') && used.includes('memory peak5.00 MiB'), 'what it used, with units: ' + used);
  check(used.includes('gpu–'), 'what is not known is not 0: ' + used);
}

async function day(page, { base, check, until }) {
  await page.goto(`${base}/#/node/ams-c-111`);
  await until(page, 'the last day of the node', () => document.querySelectorAll('.plot svg').length === 5);
  check((await page.$eval('.figures', (it) => it.textContent)).includes('Score of 10,0009,610'), 'what the contract says: ' + await page.$eval('.figures', (it) => it.textContent));
  const asked = await page.$eval('#h-x', (it) => it.parentElement.textContent);
  check(/asked (3\d|4\d|5\d) s ago|asked \d min ago/.test(asked), 'when it was asked: ' + asked);
  await page.goto(`${base}/#/node/ams-a-101`);
  await until(page, 'a node without watched jobs says so', () => document.querySelector('main').textContent.includes('No job that was watched ran here in the last 24 h'));
}

async function earnings(page, { base, check, until, shot }) {
  await page.goto(`${base}/#/fleet`);
  await until(page, 'the fleet', () => document.querySelector('.grid'));
  await page.keyboard.press('g');
  await page.keyboard.press('i');
  await until(page, 'g i opens earnings', () => document.title.startsWith('Earnings ·') && document.querySelectorAll('.share').length > 14);
  const days = await page.$$eval('[aria-label="Days, table"] tbody tr', (all) => all.map((row) => [...row.children].map((cell) => cell.textContent)));
  check(days.length === 14 && days[0][0] === new Date().toISOString().slice(0, 10), 'fourteen days, today first: ' + days[0]);
  check(days[0][1] === '27 / 0' && days[1][1] === '30 / 3', 'jobs of a day: ' + days[0] + ' ' + days[1]);
  const nodes = await page.$$eval('[aria-label="Nodes, table"] tbody tr', (all) => all.slice(0, 3).map((row) => [...row.children].map((cell) => cell.textContent)));
  check(nodes[0][0] === 'ams-a-102' && nodes[1][0] === 'ams-c-111', 'who holds most cards is first: ' + nodes.map((row) => row[0]));
  check(nodes[1].at(-1) === '9,610' && nodes[0].at(-1) === '–', 'the score, where it is known: ' + nodes.map((row) => row.at(-1)));
  check(/do not say which cards/.test(await page.$eval('main', (it) => it.textContent)), 'it says of how many nodes the cards are not known');
  await shot(page, 'work-earnings');
  const count = () => page.$$eval('[aria-label="Nodes, table"] tbody tr', (all) => all.length);
  check(await count() === 50, 'fifty nodes at first: ' + await count());
  await page.evaluate(() => [...document.querySelectorAll('button')].find((it) => it.textContent === '450 more').click());
  check(await count() === 500, 'five hundred if asked for: ' + await count());
  await page.goto(`${base}/#/earnings?days=7&node=ams-c-111`);
  await until(page, 'one node', () => document.querySelectorAll('[aria-label="Days, table"] tbody tr').length === 7);
  check((await page.$eval('h1', (it) => it.textContent)) === 'Earnings and idle time of ams-c-111', 'whose it is');
  const idle = await page.$$eval('[aria-label="Days, table"] tbody tr', (all) => all.map((row) => row.children[6].textContent));
  check(idle.every((it) => it === '–'), 'what the hub did not watch is not called idle: ' + idle);
  await page.click('[aria-label="Days, table"] .share');
  check((await page.$eval('#ev', (it) => it.textContent)).includes('held by jobs'), 'evidence of a bar');
}
