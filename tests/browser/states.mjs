// What the pages say while there is nothing, while they wait, and when the hub does not answer.

const PARTS = {
  fleet: ['#/fleet', '/api/fleet', 'Loading nodes', 'No node has been heard yet'],
  alerts: ['#/alerts', '/api/alerts', 'Loading alerts', 'Nothing is the matter'],
  events: ['#/events', '/api/events', 'Loading events', 'The hub has heard no such event yet'],
};
const says = (text) => document.querySelector('main').textContent.includes(text);

export async function states({ base, check, open, until, shot }) {
  for (const [name, [hash, path, loading, empty]] of Object.entries(PARTS)) {
    const page = await open();
    let answer = null;
    await page.setRequestInterception(true);
    page.on('request', (request) => {
      const isIt = new URL(request.url()).pathname === path;
      if (isIt && answer === 'wait') return; // never answered
      if (isIt && answer === 'fail') request.respond({ status: 503, contentType: 'application/json', body: '{"detail":"the hub\'s database failed"}' });
      else if (isIt && answer === 'login') request.respond({ status: 401, contentType: 'application/json', body: '{"detail":"Unauthorized"}' });
      else if (isIt && answer === 'cut') request.abort();
      else request.continue();
    });
    page.expected = true;
    for (const [now, text] of [['wait', loading], ['fail', "the hub's database failed"], ['login', 'people who are logged in'], ['cut', 'The hub does not answer']]) {
      answer = now;
      await page.goto('about:blank');
      await page.goto(`${base}/${hash}`);
      await until(page, `${name}, ${now}: says ${text}`, says, text);
    }
    await shot(page, `failed-${name}`);
    answer = null;
    // Events and alerts are asked for again by a button.
    await page.evaluate(() => [...document.querySelectorAll('main button')].find((it) => it.textContent === 'Try again').click());
    await until(page, `${name}: says ${empty}`, says, empty);
    await shot(page, `empty-${name}`);
    await page.browserContext().close();
  }
  const page = await open();
  page.expected = true;
  await page.goto(`${base}/#/node/nobody`);
  await until(page, 'a node that is not known', says, 'no node of this name is known');
  await page.goto(`${base}/#/nowhere`);
  await until(page, 'a page that is not there', says, 'Nothing here');
  const raw = await (await fetch(base)).text();
  check(raw.includes('<title>Fleet of &lt;Ann &amp; Bo&gt;</title>'), 'the title is in the page without any script');
  const head = await fetch(base, { method: 'HEAD' });
  check(head.status === 200 && head.headers.get('content-type').startsWith('text/html'), 'HEAD / is a page');
}
