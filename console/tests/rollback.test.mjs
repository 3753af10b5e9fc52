// Versions: their difference, the way back, and what happens when somebody else was faster.
import assert from "node:assert/strict";
import { test } from "node:test";
import { accessible, api, open, screenshot, signIn, until, visit } from "./browser.mjs";

const rule = (limit) => ({ sql: `SELECT *\nFROM 'hall/+'\nWHERE temperature > ${limit}`, actions: [{ name: "log", type: "log" }] });

test("a rule is rolled back, and a conflict is shown", async (t) => {
  const { page } = await open(t, { refusals: [401, 412] });
  await signIn(page, "ada");
  await api("PUT", "/rules/comfort", rule(20));
  await api("PUT", "/rules/comfort", rule(30));

  await visit(page, "/rules/comfort", "comfort");
  await page.getByText("version 2 by").waitFor();
  await page.getByRole("button", { name: "Difference to version 1" }).click();
  await page.locator(".diff-line.removed", { hasText: "temperature > 20" }).waitFor();
  await page.locator(".diff-line.added", { hasText: "temperature > 30" }).waitFor();
  await page.getByRole("button", { name: "Roll back to version 1" }).click();
  await page.getByRole("dialog").locator(".diff-line.added", { hasText: "temperature > 20" }).waitFor();
  await accessible(page, "the question before a roll-back");
  await page.getByRole("dialog").getByRole("button", { name: "Roll back" }).click();
  await page.getByText("version 3 by ada").waitFor();
  assert.match((await api("GET", "/rules/comfort")).definition.sql, /temperature > 20/);
  const sql = page.getByRole("textbox", { name: "SQL statement" });
  await until("the editor has the statement of version 1", async () => /temperature > 20/.test(await sql.innerText()));

  // What isn't saved is there again when the page was loaded anew.
  await sql.click();
  await page.keyboard.press("Control+End");
  await page.keyboard.type(" AND open");
  await page.keyboard.press("Escape");
  await page.locator(".finding.fine").waitFor();
  await page.reload();
  await until("the unsaved statement is there", async () => /20 AND open/.test(await sql.innerText()));
  await page.locator(".finding.fine").waitFor();

  // Somebody else saves meanwhile.
  await api("PUT", "/rules/comfort", rule(40));
  await page.getByRole("button", { name: "Save", exact: true }).click();
  const dialog = page.getByRole("dialog", { name: "Somebody was faster" });
  await dialog.getByText("version 4").waitFor();
  await dialog.locator(".diff-line.removed", { hasText: "temperature > 40" }).waitFor();
  await dialog.locator(".diff-line.added", { hasText: "temperature > 20 AND open" }).waitFor();
  await screenshot(page, "conflict-1440-light");
  await dialog.getByRole("button", { name: "Save mine over it" }).click();
  await page.getByText("version 5 by ada").waitFor();
  assert.match((await api("GET", "/rules/comfort")).definition.sql, /temperature > 20 AND open/);
});
