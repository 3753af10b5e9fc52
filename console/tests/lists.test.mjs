// Lists of ten thousand: one page is in the browser, the rest is found by paging and searching, and who comes back finds the place again.
import assert from "node:assert/strict";
import { test } from "node:test";
import { accessible, api, fits, gateway, mqttClient, NARROW, open, screenshot, signIn, until, visit, WIDE } from "./browser.mjs";

const MANY = 10_000;

/** Rows that a page has. */
const PAGE = 100;

const named = (number) => `site-${String(number).padStart(5, "0")}`;

function ruleOf(number) {
  const counters = { name: named(number), matched: number, passed: 0, failed_evaluation: 0, failed_steps: 0, last_match_at_ms: null, last_error: null, actions: [] };
  return {
    name: named(number), owner: "file", runs: number % 2 === 0, enabled: true, suspended: null, version: null, author: null, changed_at_ms: null, warnings: 0,
    description: `what site ${number} sends`, tags: [`group-${number % 3}`], file: "rules.d/sites.toml",
    details: { sql: `SELECT *\nFROM 'sites/${number}/+'`, warnings: [], counters },
  };
}

function letterOf(number) {
  return { name: `overheat/ops:${number}`, rule: "overheat", action: "ops", cause: "refused", error: `no such site: ${number}`, attempts: 1, topic: `hall/${number}`, ended_at_ms: 1_700_000_000_000 + number };
}

/** Answers a list as the gateway does, of entries that are made when they are asked for. */
async function serve(page, pattern, member, entries, extra) {
  await page.route(pattern, async (route) => {
    const query = new URL(route.request().url()).searchParams;
    const fitting = entries(query);
    const from = Number(query.get("after") ?? 0);
    const shown = fitting.slice(from, from + Number(query.get("limit")));
    const next = from + shown.length < fitting.length ? String(from + shown.length) : null;
    await route.fulfill({ json: { [member]: shown, next, ...extra(query) } });
  });
}

test("ten thousand rules are paged, searched, and found again", async (t) => {
  const { page } = await open(t);
  await signIn(page, "ada");
  const rules = Array.from({ length: MANY }, (_, number) => ruleOf(number));
  await serve(page, /\/api\/v1\/rules\?/, "rules", (query) => rules.filter((rule) =>
    (rule.name + rule.description).includes(query.get("search") ?? "") && rule.tags.includes(query.get("tag") ?? rule.tags[0]) && String(rule.runs) === (query.get("runs") ?? String(rule.runs))), () => ({ total: MANY }));
  await visit(page, "/rules", "Rules");
  const rows = page.locator("tbody tr");
  const foot = page.getByRole("navigation", { name: "Pages of rules" });
  await foot.getByText("1 to 100 of 10,000 rules").waitFor();
  assert.equal(await rows.count(), PAGE);
  assert.ok(await foot.getByRole("button", { name: "Previous" }).isDisabled());
  await foot.getByRole("button", { name: "Next" }).click();
  await foot.getByText("101 to 200 of 10,000 rules").waitFor();
  await page.getByRole("link", { name: named(100) }).waitFor();
  assert.equal(await rows.count(), PAGE, "only one page is in the browser");
  await page.getByText("SELECT * FROM 'sites/100/+'").waitFor();
  for (const [width, viewport] of [["1440", WIDE], ["360", NARROW]]) {
    await page.setViewportSize(viewport);
    await fits(page, `ten thousand rules at ${width}`);
    await screenshot(page, `rules-many-${width}-light`);
  }
  await accessible(page, "ten thousand rules");
  await page.setViewportSize(WIDE);

  // Away and back: the same page.
  await page.getByRole("link", { name: "Actions", exact: true }).click();
  await page.getByRole("heading", { level: 1, name: "Actions" }).waitFor();
  await page.goBack();
  await foot.getByText("101 to 200 of 10,000 rules").waitFor();

  // A search begins anew, stands in the place of the page, and outlives a reload.
  await page.keyboard.press("/");
  await page.keyboard.type("site-0999");
  await foot.getByText("10 rules", { exact: true }).waitFor();
  await until("the search stands in the address", async () => page.url().endsWith("#/rules?search=site-0999"));
  await page.reload();
  await foot.getByText("10 rules", { exact: true }).waitFor();
  assert.equal(await page.getByLabel("Search rules").inputValue(), "site-0999");
  await page.getByLabel("Which rules").selectOption("false");
  await foot.getByText("5 rules", { exact: true }).waitFor();
  await page.getByLabel("Search rules").fill("nothing like it");
  await page.getByText("No rule fits the search").waitFor();
  await page.getByRole("button", { name: "Show all rules" }).click();
  await foot.getByText("1 to 100 of 10,000 rules").waitFor();
  await page.getByRole("button", { name: "Only rules with the tag group-2" }).first().click();
  await foot.getByText("1 to 100; there are more rules").waitFor();
  await page.getByRole("button", { name: "Show rules without this tag, too" }).click();
  await foot.getByText("1 to 100 of 10,000 rules").waitFor();
});

test("ten thousand dead letters are paged, and a step that finds none isn't the end", async (t) => {
  const { page } = await open(t);
  await signIn(page, "ada");
  const letters = Array.from({ length: MANY }, (_, number) => letterOf(number + 1));
  await serve(page, /\/api\/v1\/dead-letters\?/, "letters", () => letters, (query) => ({ total: query.get("cause") ? null : MANY }));
  await visit(page, "/dead-letters", "Dead letters");
  const foot = page.getByRole("navigation", { name: "Pages of dead letters" });
  await foot.getByText("1 to 100 of 10,000 dead letters").waitFor();
  assert.equal(await page.locator("tbody tr").count(), PAGE);
  await foot.getByRole("button", { name: "Next" }).click();
  await foot.getByText("101 to 200 of 10,000 dead letters").waitFor();
  await page.getByLabel("pick all that are shown").check();
  await page.getByText("100 picked").waitFor();
  await foot.getByRole("button", { name: "Previous" }).click();
  await foot.getByText("1 to 100 of 10,000 dead letters").waitFor();
  await page.getByText("pick all that are shown").waitFor();
  await screenshot(page, "dead-letters-many-1440-light");
  // All that fit are named by number before anything is done, also where nobody has counted.
  await page.getByLabel("Cause").selectOption("refused");
  await foot.getByText("1 to 100; there are more dead letters").waitFor();
  await page.getByRole("button", { name: "Drop all that fit" }).click();
  await page.getByRole("dialog").getByText("10,000 dead letters", { exact: true }).waitFor();
  await page.getByRole("button", { name: "Cancel" }).click();

  // The gateway looks at so many letters for one answer; the first that fits may stand behind them.
  await page.unroute(/\/api\/v1\/dead-letters\?/);
  await page.route(/\/api\/v1\/dead-letters\?/, (route) => {
    const isFirst = !new URL(route.request().url()).searchParams.has("after");
    return route.fulfill({ json: isFirst ? { letters: [], next: "behind", total: null } : { letters: [letterOf(7)], next: null, total: null } });
  });
  await page.getByLabel("Cause").selectOption("expired");
  await page.getByRole("link", { name: "overheat/ops:7", exact: true }).waitFor();
});

test("every cause that is offered is one that the gateway knows", async (t) => {
  const { page } = await open(t);
  await signIn(page, "ada");
  await visit(page, "/dead-letters", "Dead letters");
  const causes = await page.getByLabel("Cause").getByRole("option").evaluateAll((options) => options.map((option) => option.value).filter(Boolean));
  assert.ok(causes.includes("retries_exhausted"));
  for (const cause of causes) {
    const answer = page.waitForResponse((response) => response.url().includes(`cause=${cause}`));
    await page.getByLabel("Cause").selectOption(cause);
    assert.equal((await answer).status(), 200, cause);
  }
  const known = /expected one of (.*)/.exec((await (await page.request.get(`${gateway.console}/api/v1/dead-letters?cause=x`)).json()).detail)[1].split(", ");
  assert.deepEqual(causes.sort(), known.sort(), "all are offered");
});

test("a list of actions goes on being live on its second page", async (t) => {
  const device = await mqttClient(t, "press-1");
  const { page } = await open(t);
  await signIn(page, "ada");
  const actions = Array.from({ length: 150 }, (_, number) => ({ name: `a${String(number).padStart(3, "0")}`, type: "republish", topic: `out/${number}` }));
  await api("PUT", "/rules/aaa", { sql: "SELECT * FROM 'x/+'", actions: actions.slice(0, 60) });
  await api("PUT", "/rules/bbb", { sql: "SELECT * FROM 'x/+'", actions: actions.slice(60, 120) });
  await visit(page, "/actions", "Actions");
  await page.getByRole("navigation", { name: "Pages of actions" }).getByRole("button", { name: "Next" }).click();
  const row = page.getByRole("row", { name: /bbb\/a119/ });
  await row.waitFor();
  await device.publishAsync("x/1", "{}", { qos: 1 });
  await until("the message is counted", async () => (await row.getByRole("cell").nth(5).innerText()) === "1");
  await page.getByLabel("State").selectOption("paused");
  await page.getByText("No action is paused").waitFor();
  assert.ok(page.url().endsWith("#/actions?state=paused"));
});
