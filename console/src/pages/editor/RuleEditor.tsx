// The rule editor: statement and actions on one side, a message and what becomes of it on the other, samples and history
// below. Nothing that is tried here is sent or counted.
import { useEffect, useMemo, useState } from "preact/hooks";
import { api, path, request } from "../../api/client";
import { asProblem, type Problem } from "../../api/problem";
import type { Case, Definition, Rule, RulesChanged } from "../../api/types";
import { Badge } from "../../components/Badge";
import { CopyAs, curl, quoted } from "../../components/CopyAs";
import { Icon } from "../../components/icons";
import { Confirm } from "../../components/Dialog";
import { forgetUndo, say, sayProblem, sayUndo } from "../../components/Notices";
import { Page } from "../../components/Page";
import { Switch } from "../../components/Switch";
import { go, href, listPlace, unsaved } from "../../routes";
import { may, session } from "../../state/session";
import { plural } from "../../text/format";
import { filtersOf } from "../../text/topics";
import { ruleToml } from "../../text/toml";
import { turnRule } from "../rules/RuleRow";
import { ActionsPanel } from "./ActionsPanel";
import { CasesPanel } from "./CasesPanel";
import { firstInput, type Input, NEW_RULE } from "./draft";
import { dropDraft, keepDraft, keptDraft } from "./keptDraft";
import type { Opened } from "./EditorPage";
import { EXAMPLES } from "./examples";
import { HistoryPanel } from "./HistoryPanel";
import { InputPanel } from "./InputPanel";
import { ResultPanel } from "./ResultPanel";
import { type SaveQuestion, SaveQuestions } from "./SaveQuestions";
import { SettingsPanel } from "./SettingsPanel";
import { StatementPanel } from "./StatementPanel";
import { runCases, useExplanation, useFindings, useSelectivity, useVerdicts } from "./useChecks";
import { useSeen } from "./useSeen";

/** A rule without a name is checked under this one. */
const UNNAMED = "new-rule";

const NAME = /^[A-Za-z0-9_-]{1,64}$/;

interface Props {
  name: string | null;
  opened: Opened;
  /** Reads the rule anew, and goes on. */
  reload: () => Promise<Opened>;
  /** Reads the rule anew, and begins with it. */
  replace: () => Promise<void>;
}

export function RuleEditor({ name, opened, reload, replace }: Props) {
  const { rule, language } = opened;
  const saved = rule?.definition ?? opened.from ?? NEW_RULE;
  const [kept] = useState(() => keptDraft(name, opened.etag));
  const [definition, setDefinition] = useState<Definition>(kept?.definition ?? saved);
  const [newName, setNewName] = useState(kept?.newName ?? "");
  const [cases, setCases] = useState<Case[]>(kept?.cases ?? opened.cases);
  const [input, setInput] = useState<Input>(() => kept?.input ?? firstInput(opened.cases, filtersOf(saved.sql)));
  const [paused, setPaused] = useState(false);
  // A new rule has its topics still to be found.
  const [onlySelected, setOnlySelected] = useState(rule !== null);
  const [question, setQuestion] = useState<SaveQuestion | null>(null);
  const [busy, setBusy] = useState(false);
  // The editor of the statement has its own text: another beginning is another editor.
  const [beginning, setBeginning] = useState(0);

  const begin = (fresh: Definition, message: Input) => {
    setDefinition(fresh);
    setInput(message);
    setBeginning((now) => now + 1);
  };
  const pickExample = (title: string) => {
    const example = EXAMPLES.find((one) => one.title === title);
    if (!example) return;
    if (isDirty) sayUndo("The example took the place of what was written", () => begin(definition, input));
    begin(example.definition, example.input);
  };

  const ruleName = name ?? newName;
  const checkedName = NAME.test(ruleName) ? ruleName : UNNAMED;
  const mayTry = may("operator", "rules:read");
  const isOfFile = rule?.summary.owner === "file";
  const mayWrite = may("operator", "rules:write");
  const isReadOnly = isOfFile || !mayWrite;
  const filters = filtersOf(definition.sql);

  const following = useSeen({ isAllowed: mayTry && may("operator", "messages:read"), paused, filters, onlySelected });
  const tried = mayTry ? definition : null;
  const checked = useFindings(checkedName, tried);
  const explained = useExplanation(checkedName, tried, input);
  const verdicts = useVerdicts(checkedName, tried, cases);
  const selectivity = useSelectivity(checkedName, tried, following.seen.messages);

  const isDirty = useMemo(() => JSON.stringify(definition) !== JSON.stringify(saved), [definition, saved]);
  const casesDirty = useMemo(() => JSON.stringify(cases) !== JSON.stringify(opened.cases), [cases, opened.cases]);
  useEffect(() => {
    unsaved.value = isDirty || casesDirty ? "The rule has changes that are not saved. Leave them behind?" : null;
  }, [isDirty, casesDirty]);
  useEffect(() => {
    if (isDirty || casesDirty) keepDraft(name, { etag: opened.etag, definition, cases, newName, input });
    else dropDraft(name);
  }, [isDirty, casesDirty, definition, cases, newName, opened.etag, input]);
  useEffect(
    () => () => {
      unsaved.value = null;
      forgetUndo();
      // Left on purpose, unless the session ended: then it is there again after the sign-in.
      if (session.peek()) dropDraft(name);
    },
    [],
  );

  const put = async (etag: string | null) => {
    const headers: Record<string, string> = etag ? { "if-match": etag } : { "if-none-match": "*" };
    const ofStore = !isOfFile && (isDirty || !rule || etag === null);
    try {
      if (ofStore) {
        const answer = await request<RulesChanged>("PUT", path("rules", ruleName), { body: definition, headers });
        for (const warning of answer.body.warnings) say(warning);
      }
      if (casesDirty || (!rule && cases.length > 0)) await api.put(path("rules", ruleName, "cases"), { cases: cases.map((one) => ({ ...one, rule: ruleName })) });
    } catch (thrown) {
      const problem = asProblem(thrown);
      const other = isAboutTheName(problem, rule) ? await theirs(ruleName) : null;
      if (rule && other) setQuestion({ kind: "conflict", ...other });
      else if (other?.rule) setQuestion({ kind: "taken", rule: other.rule, etag: other.etag });
      else sayProblem(problem);
      return;
    }
    setQuestion(null);
    unsaved.value = null;
    say(ofStore ? `${ruleName} is saved, and runs as it is now` : `The samples of ${ruleName} are saved`);
    dropDraft(name);
    if (!rule) {
      go(href("rules", ruleName));
      return;
    }
    const fresh = await reload();
    setDefinition(fresh.rule?.definition ?? definition);
    setCases(fresh.cases);
  };

  const save = async () => {
    if (busy || !(isDirty || casesDirty || !rule)) return;
    setBusy(true);
    try {
      if (cases.length && (isDirty || !rule)) {
        const tested = await runCases(checkedName, definition, cases).catch(() => null);
        const failing = tested?.verdicts.filter((verdict) => verdict.pass === false) ?? [];
        if (failing.length) {
          setQuestion({ kind: "failing", failing, of: cases.length });
          return;
        }
      }
      await put(opened.etag);
    } finally {
      setBusy(false);
    }
  };

  const needsName = !rule && !NAME.test(newName);
  const canSave = !busy && NAME.test(ruleName) && checked.isValid && (isReadOnly ? casesDirty && mayWrite : isDirty || casesDirty || !rule);
  const toml = ruleToml(checkedName, definition).text;

  return (
    <Page
      above={<a href={listPlace("#/rules")}>Rules</a>}
      title={name ?? "New rule"}
      lead={rule ? <RuleFacts rule={rule} /> : undefined}
      tools={
        <>
          {rule && mayWrite && <RunSwitch rule={rule} replace={replace} />}
          <CopyAs
            items={[
              { label: "TOML", text: toml },
              { label: "CLI", does: "try the statement on the message", text: explainCommand(definition.sql, input) },
              { label: "CLI", does: "save, with the TOML as a file in rules", text: "tidegate rules apply rules" },
              { label: "curl", does: "save", text: curl("PUT", path("rules", checkedName), definition) },
            ]}
          />
          {name && mayWrite && (
            <a class="button" href={`#/new-rule?from=${encodeURIComponent(name)}`}>
              <Icon name="copy" /> Make a copy
            </a>
          )}
          {rule && !isOfFile && mayWrite && <RemoveButton rule={rule} etag={opened.etag} />}
          {mayWrite && (
            <button type="button" class="primary" disabled={!canSave} title={needsName ? "The rule needs a name" : checked.isValid ? undefined : "The rule has mistakes"} onClick={() => void save()}>
              <Icon name="check" /> {isOfFile ? "Save samples" : "Save"}
            </button>
          )}
        </>
      }
    >
      {isOfFile && (
        <p class="banner">
          <Icon name="file" />
          <span>
            This rule belongs to the file <strong class="mono">{rule.summary.file}</strong> and is changed there. What is tried here
            stays here.
          </span>
        </p>
      )}
      {!rule && (
        <div class="filters">
          <label class="field">
            <span>Name of the rule</span>
            <input
              value={newName}
              maxLength={64}
              spellcheck={false}
              autoCapitalize="none"
              placeholder="overheat"
              onInput={(event) => setNewName(event.currentTarget.value)}
            />
          </label>
          <label class="field">
            <span>Begin with an example</span>
            <select value="" onChange={(event) => pickExample(event.currentTarget.value)}>
              <option value="">choose …</option>
              {EXAMPLES.map((one) => (
                <option key={one.title}>{one.title}</option>
              ))}
            </select>
          </label>
          {newName !== "" && !NAME.test(newName) && <p class="hint complaint-soft">Letters, digits, - and _, 64 at most.</p>}
        </div>
      )}
      <div class={mayTry ? "columns editor-columns" : "columns"}>
        <div class="stack">
          <StatementPanel
            key={beginning}
            definition={definition}
            language={language}
            seen={following.seen}
            checked={checked}
            readOnly={!mayTry || (isReadOnly && !isOfFile)}
            selectivity={selectivity}
            onChange={setDefinition}
            onSave={() => canSave && void save()}
          />
          <ActionsPanel definition={definition} finds={checked.finds} readOnly={isReadOnly} onChange={setDefinition} />
          <SettingsPanel definition={definition} readOnly={isReadOnly} onChange={setDefinition} />
          {mayTry && (
            <CasesPanel
              rule={ruleName || UNNAMED}
              cases={cases}
              verdicts={verdicts}
              readOnly={!mayWrite}
              input={input}
              explanation={explained.explanation}
              onChange={setCases}
              onLoad={setInput}
            />
          )}
        </div>
        {mayTry && (
          <div class="stack">
            <InputPanel
              input={input}
              onChange={setInput}
              following={following}
              filters={onlySelected ? filters : []}
              onlySelected={onlySelected}
              onOnlySelected={setOnlySelected}
              paused={paused}
              onPause={setPaused}
            />
            <ResultPanel tried={explained} />
          </div>
        )}
      </div>
      {rule && !isOfFile && mayTry && <HistoryPanel rule={rule} current={definition} mayWrite={mayWrite} replace={replace} />}
      {question && (
        <SaveQuestions
          question={question}
          mine={definition}
          onAnyway={(etag) => put(etag ?? opened.etag)}
          onAnew={() => put(null)}
          onTheirs={() => {
            setQuestion(null);
            dropDraft(name);
            void replace();
          }}
          onClose={() => setQuestion(null)}
        />
      )}
    </Page>
  );
}

/** Whether a save was refused because of the rule that has the name, or no longer has. */
function isAboutTheName(problem: Problem, rule: Rule | null): boolean {
  return problem.isConflict || (rule ? problem.isMissing : problem.status === 409);
}

/** What the editor shows, on the command line. */
function explainCommand(sql: string, { topic, format, text, clientId, username, qos }: Input): string {
  const options = [`--topic ${quoted(topic)}`];
  if (clientId) options.push(`--client-id ${quoted(clientId)}`);
  if (username) options.push(`--username ${quoted(username)}`);
  if (qos) options.push(`--qos ${qos}`);
  const command = `tidegate rules explain --sql ${quoted(sql)} ${options.join(" ")}`;
  if (format === "hex") return `echo ${quoted(text)} | xxd -r -p | ${command} --payload @-`;
  // `@` at the beginning would name a file.
  return text.startsWith("@") ? `printf %s ${quoted(text)} | ${command} --payload @-` : `${command} --payload ${quoted(text)}`;
}

async function theirs(name: string): Promise<{ rule: Rule | null; etag: string | null }> {
  try {
    const { body, etag } = await request<Rule>("GET", path("rules", name));
    return { rule: body, etag };
  } catch {
    return { rule: null, etag: null };
  }
}

function RuleFacts({ rule }: { rule: Rule }) {
  const { summary } = rule;
  return (
    <span class="badges">
      <Badge tone={summary.runs ? "good" : "plain"}>{summary.runs ? "runs" : "does not run"}</Badge>
      {summary.owner === "store" && summary.version && (
        <Badge tone="plain" icon="clock">
          version {summary.version}
          {summary.author && ` by ${summary.author}`}
        </Badge>
      )}
      {summary.owner === "file" && (
        <Badge tone="info" icon="file">
          of a file
        </Badge>
      )}
      {summary.description}
    </span>
  );
}

function RemoveButton({ rule, etag }: { rule: Rule; etag: string | null }) {
  const [asks, setAsks] = useState(false);
  const { name } = rule.summary;
  const waiting = rule.counters?.actions.reduce((sum, action) => sum + (action.delivery?.queued ?? 0), 0) ?? 0;
  const remove = async () => {
    try {
      await api.delete(path("rules", name), etag ? { "if-match": etag } : {});
    } catch (thrown) {
      const problem = asProblem(thrown);
      setAsks(false);
      sayProblem(problem.isConflict ? new Error("somebody has changed the rule meanwhile; load the page again to see how") : problem);
      return;
    }
    unsaved.value = null;
    dropDraft(name);
    say(`${name} is removed`);
    go(listPlace("#/rules"));
  };
  return (
    <>
      <button type="button" class="danger-quiet" onClick={() => setAsks(true)}>
        <Icon name="trash" /> Remove…
      </button>
      {asks && (
        <Confirm title={`Remove ${name}?`} act="Remove the rule" dangerous typed={name} onConfirm={remove} onClose={() => setAsks(false)}>
          <p>
            It matches nothing any more from that moment on.{" "}
            {waiting > 0
              ? `${plural(waiting, "request")} ${waiting === 1 ? "waits" : "wait"} in its queues: what becomes of them says on_remove, "drain" where nothing else is said.`
              : "Nothing waits in its queues."}
          </p>
        </Confirm>
      )}
    </>
  );
}

function RunSwitch({ rule, replace }: { rule: Rule; replace: () => Promise<void> }) {
  const [wanted, setWanted] = useState<boolean | null>(null);
  const turn = async (on: boolean) => {
    if (unsaved.value && !window.confirm(unsaved.value)) return;
    setWanted(on);
    try {
      await turnRule(rule.summary, on);
      dropDraft(rule.summary.name);
      await replace();
    } catch (thrown) {
      sayProblem(thrown);
    } finally {
      setWanted(null);
    }
  };
  return <Switch label="Runs" shown checked={wanted ?? rule.summary.runs} disabled={wanted !== null} onChange={(on) => void turn(on)} />;
}
