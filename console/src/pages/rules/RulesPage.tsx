// All rules: whether each runs, how fast it matches, when it did last, what went wrong, what waits behind it.
import { useEffect, useState } from "preact/hooks";
import { api, path } from "../../api/client";
import { usePages } from "../../api/pages";
import { useStream } from "../../api/stream";
import type { RuleCounters, RulePage, RuleSummary } from "../../api/types";
import { CopyAs, curl } from "../../components/CopyAs";
import { Icon } from "../../components/icons";
import { Live } from "../../components/Live";
import { ListFoot } from "../../components/ListFoot";
import { Page } from "../../components/Page";
import { Empty, Loaded } from "../../components/states";
import { route, setQuery } from "../../routes";
import { may } from "../../state/session";
import { RuleRow } from "./RuleRow";
import { type Tracked, track } from "./tracked";

/** Rules of a page. */
const PAGE_RULES = 100;

/** Milliseconds after the last key until the search is asked for. */
const SEARCH_AFTER_MS = 250;

/** Milliseconds between two looks whether a rate is still one, and between two whether the rules are still those. */
const FADE_EVERY_MS = 1_000;
const LOOK_EVERY_MS = 10_000;

interface Filter {
  search: string;
  tag: string;
  /** "true", "false" or "": both. */
  runs: string;
}

export function RulesPage() {
  const { query } = route.value;
  const [filter, setFilter] = useState<Filter>(() => filterOf(query));
  const [asked, setAsked] = useState(filter);
  const [paused, setPaused] = useState(false);
  const [counters, setCounters] = useState<Map<string, Tracked>>(new Map());
  const [, setNow] = useState(0);
  const rules = usePages({ key: `rules ${JSON.stringify(asked)}`, load: (after) => load(asked, after), entries: (page) => page.rules });
  const { reload } = rules;

  // Another place of the same page: a link to it, a step back.
  useEffect(() => setFilter(filterOf(query)), [query]);
  useEffect(() => {
    const wish = { ...filter, search: filter.search.trim() };
    const timer = window.setTimeout(() => {
      setAsked(wish);
      setQuery({ ...wish });
    }, filter.search === asked.search ? 0 : SEARCH_AFTER_MS);
    return () => window.clearTimeout(timer);
  }, [filter]);

  const stream = useStream({
    url: path("live", "rules"),
    kinds: ["rule", "rule_gone"],
    paused,
    subject: (data) => (data as { name?: string } | null)?.name ?? "",
    onEvents: (events) => {
      setCounters((known) => {
        const next = new Map(known);
        for (const event of events) {
          const fresh = event.data as RuleCounters | null;
          if (fresh && event.kind === "rule") next.set(fresh.name, track(next.get(fresh.name), fresh, event.at));
        }
        return next;
      });
    },
  });
  useEffect(() => {
    if (paused) return;
    // Only rules that work are told of: the rates of the others end by the clock.
    const fade = window.setInterval(() => setNow(Date.now()), FADE_EVERY_MS);
    // Who was switched, saved or removed elsewhere.
    const look = window.setInterval(() => {
      if (!document.hidden) void reload();
    }, LOOK_EVERY_MS);
    return () => {
      window.clearInterval(fade);
      window.clearInterval(look);
    };
  }, [paused, reload]);

  const changed = (rule: RuleSummary) => {
    if (rules.data) rules.set({ ...rules.data, rules: rules.data.rules.map((one) => (one.name === rule.name ? rule : one)) });
  };
  const isFiltered = asked.search !== "" || asked.tag !== "" || asked.runs !== "";

  return (
    <Page
      title="Rules"
      tools={
        <>
          <Live state={stream.state} paused={paused} waiting={stream.waiting} onPause={setPaused} />
          <CopyAs
            items={[
              { label: "CLI", text: "tidegate rules list\ntidegate rules counters" },
              { label: "TOML", text: "# The rules of the store as a rule file:\n#   tidegate rules export > rules.d/store.toml\n# Those of files stand in rules.d." },
              { label: "curl", text: `${curl("GET", `${path("rules")}?details=true`)}\n${curl("GET", path("export", "rules"))}` },
            ]}
          />
          {may("operator", "rules:write") && (
            <a class="button primary" href="#/new-rule">
              <Icon name="plus" /> New rule
            </a>
          )}
        </>
      }
    >
      <div class="filters">
        <label class="field grow">
          <span class="hidden">Search rules</span>
          <input type="search" placeholder="Search by name, description or tag: press /" value={filter.search} onInput={(event) => setFilter({ ...filter, search: event.currentTarget.value })} />
        </label>
        <label class="field">
          <span class="hidden">Which rules</span>
          <select value={filter.runs} onChange={(event) => setFilter({ ...filter, runs: event.currentTarget.value })}>
            <option value="">all</option>
            <option value="true">those that run</option>
            <option value="false">those that don't</option>
          </select>
        </label>
        {filter.tag && (
          <button type="button" class="tag" onClick={() => setFilter({ ...filter, tag: "" })}>
            {filter.tag} <Icon name="cross" size={12} />
            <span class="hidden">Show rules without this tag, too</span>
          </button>
        )}
      </div>
      <Loaded of={rules}>
        {(data) =>
          data.rules.length === 0 ? (
            <Empty title={isFiltered ? "No rule fits the search" : "No rules yet"}>
              {isFiltered ? (
                <button type="button" onClick={() => setFilter({ search: "", tag: "", runs: "" })}>
                  Show all rules
                </button>
              ) : (
                <>
                  <p>A rule selects messages with SQL and says what is done with them. Rule files in rules.d show up here, too.</p>
                  {may("operator", "rules:write") && (
                    <a class="button primary" href="#/new-rule">
                      <Icon name="plus" /> Write the first rule
                    </a>
                  )}
                </>
              )}
            </Empty>
          ) : (
            <>
              <div class="scroll">
                <table class="table cards">
                  <thead>
                    <tr>
                      <th scope="col">Runs</th>
                      <th scope="col">Rule</th>
                      <th scope="col" class="number" title="Messages on the topics of FROM">Matched</th>
                      <th scope="col" class="number" title="Messages that WHERE let pass">Passed</th>
                      <th scope="col" class="number">Failed</th>
                      <th scope="col">Last match</th>
                      <th scope="col">Actions</th>
                      <th scope="col">Owner</th>
                    </tr>
                  </thead>
                  <tbody>
                    {data.rules.map((rule) => (
                      <RuleRow key={rule.name} rule={rule} tracked={counters.get(rule.name)} onChanged={changed} onTag={(tag) => setFilter({ ...filter, tag })} />
                    ))}
                  </tbody>
                </table>
              </div>
              <ListFoot of={rules} shown={data.rules.length} what="rule" total={isFiltered ? null : data.total} />
            </>
          )
        }
      </Loaded>
    </Page>
  );
}

function filterOf(query: URLSearchParams): Filter {
  const of = (name: string) => query.get(name) ?? "";
  return { search: of("search"), tag: of("tag"), runs: of("runs") };
}

function load({ search, tag, runs }: Filter, after?: string): Promise<RulePage> {
  return api.get<RulePage>(path("rules"), { details: true, limit: PAGE_RULES, search, tag, runs, after });
}
