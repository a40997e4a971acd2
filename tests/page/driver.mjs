// Drives a headless Chromium for the tests of the status page: each line on standard input is one order in JSON, each line
// on standard output its answer. playwright-core is imported from the `node_modules` that the first
// argument names; the second is the browser.
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';
import { join } from 'node:path';

const { chromium } = await import(pathToFileURL(join(process.argv[2], 'playwright-core/index.mjs')));
const browser = await chromium.launch({
  executablePath: process.argv[3],
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
// What the page did that it must not do, or that failed: `events` answers it.
let page = null, events = [];

const orders = {
  async open({ url, width, height, scheme, password, scripts }) {
    if (page) await page.context().close();
    events = [];
    const context = await browser.newContext({
      viewport: { width, height }, colorScheme: scheme, deviceScaleFactor: 1, locale: 'en-GB', timezoneId: 'UTC',
      javaScriptEnabled: scripts !== false,
      httpCredentials: password ? { username: 'me', password } : undefined,
    });
    page = await context.newPage();
    page.on('pageerror', (error) => events.push(`error: ${error.message}`));
    page.on('dialog', (dialog) => { events.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
    page.on('console', (message) => events.push(`console: ${message.text()}`));
    page.on('request', (request) => {
      const address = new URL(request.url());
      if (address.host !== new URL(url).host && address.protocol !== 'data:') events.push(`request: ${request.url()}`);
    });
    // Chromium shows a page of its own in place of an empty or refused answer, and calls that an error.
    let status;
    page.on('response', (response) => { if (response.url() === url) status = response.status(); });
    await page.goto(url).catch((error) => { if (!status) throw error; });
    return status;
  },
  text: ({ selector }) => page.locator(selector).first().innerText({ timeout: 2000 }).catch(() => null),
  evaluate: ({ script }) => page.evaluate(script),
  screenshot: ({ path }) => page.screenshot({ path }).then(() => null),
  events: () => ({ list: events }),
};

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  let answer;
  try {
    answer = { value: (await orders[order.do](order)) ?? null };
  } catch (error) {
    answer = { error: String(error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();
