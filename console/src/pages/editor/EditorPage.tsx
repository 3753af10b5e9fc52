// A rule: loads it with the language and its samples, and shows the editor, or what a viewer may see of it.
import { useState } from "preact/hooks";
import { api, path, request } from "../../api/client";
import { useResource } from "../../api/resource";
import type { Case, Definition, Language, Rule } from "../../api/types";
import { Page } from "../../components/Page";
import { Loaded } from "../../components/states";
import { listPlace } from "../../routes";
import { may } from "../../state/session";
import { RuleEditor } from "./RuleEditor";

export interface Opened {
  /** Null: a new rule. */
  rule: Rule | null;
  /** What a new rule begins with: another one, of which it is a copy. */
  from: Definition | null;
  etag: string | null;
  language: Language;
  cases: Case[];
}

export function EditorPage({ name, from }: { name: string | null; from: string | null }) {
  const opened = useResource(`rule ${name ?? ""} ${from ?? ""}`, () => open(name, from), { isWorkedOn: true });
  const [revision, setRevision] = useState(0);
  // After a save the editor goes on with what it has; another version of the rule is another editor.
  const reload = async () => {
    const fresh = await open(name, from);
    opened.set(fresh);
    return fresh;
  };
  const replace = async () => {
    // Both at once: the editor that goes must not see the rule that comes.
    const fresh = await open(name, from);
    opened.set(fresh);
    setRevision((now) => now + 1);
  };
  if (opened.data) return <RuleEditor key={revision} name={name} opened={opened.data} reload={reload} replace={replace} />;
  return (
    <Page title={name ?? "New rule"} above={<a href={listPlace("#/rules")}>Rules</a>}>
      <Loaded of={opened}>{() => null}</Loaded>
    </Page>
  );
}

async function open(name: string | null, from: string | null): Promise<Opened> {
  const language = await api.get<Language>(path("language"));
  if (name === null) {
    const rule = from === null ? null : await api.get<Rule>(path("rules", from));
    return { rule: null, from: rule?.definition ?? null, etag: null, language, cases: from === null ? [] : await casesOf(from) };
  }
  const { body: rule, etag } = await request<Rule>("GET", path("rules", name));
  return { rule, from: null, etag, language, cases: may("operator", "rules:read") ? await casesOf(name) : [] };
}

async function casesOf(name: string): Promise<Case[]> {
  return (await api.get<{ cases: Case[] }>(path("rules", name, "cases"))).cases;
}
