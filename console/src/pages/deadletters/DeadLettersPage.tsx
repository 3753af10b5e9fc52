// Dead letters: found by rule, action, cause and time; sent again or dropped, one, many, or all that fit.
import { useEffect, useRef, useState } from "preact/hooks";
import { path, withQuery } from "../../api/client";
import { usePages } from "../../api/pages";
import { CopyAs, curl } from "../../components/CopyAs";
import { Confirm } from "../../components/Dialog";
import { Icon } from "../../components/icons";
import { ListFoot } from "../../components/ListFoot";
import { say, sayProblem } from "../../components/Notices";
import { Page } from "../../components/Page";
import { Empty, Loaded } from "../../components/states";
import { Time } from "../../components/Time";
import { href, route, setQuery } from "../../routes";
import { gatewayNow, may } from "../../state/session";
import { count, plural, words } from "../../text/format";
import { CAUSES, changeAll, changeEach, countLetters, type LetterFilter, load, members, NO_FILTER, options, positionOf, type Progress, SINCE } from "./letters";

/** Milliseconds between two looks for new letters. */
const LOOK_EVERY_MS = 10_000;

type Verb = "redrive" | "drop";

/** What somebody is about to do to many letters. */
interface Wish {
  verb: Verb;
  /** Null: to those that are picked. */
  filter: Record<string, string | number> | null;
  number: number;
}

/** What is being done, and to how many of how many. */
interface Work extends Progress {
  verb: Verb;
  of: number;
}

const DONE: Record<Verb, string> = { redrive: "sent again", drop: "dropped" };

export function DeadLettersPage() {
  const { query } = route.value;
  const [filter, setFilter] = useState<LetterFilter>(() => filterOf(query));
  const [picked, setPicked] = useState<Set<string>>(new Set());
  const [wish, setWish] = useState<Wish | null>(null);
  const [work, setWork] = useState<Work | null>(null);
  const stop = useRef(false);
  const letters = usePages({ key: `letters ${JSON.stringify(filter)}`, load: (after) => load(filter, after), entries: (page) => page.letters });
  const { reload } = letters;
  const mayChange = may("operator", "dead_letters:write");
  const mayOpen = may("operator", "dead_letters:read");
  const isFiltered = JSON.stringify(filter) !== JSON.stringify(NO_FILTER);
  const busy = work !== null;

  useEffect(() => {
    // What somebody picks from stands still.
    if (busy || picked.size > 0) return;
    const timer = window.setInterval(() => {
      if (!document.hidden) void reload();
    }, LOOK_EVERY_MS);
    return () => window.clearInterval(timer);
  }, [busy, picked.size, reload]);
  useEffect(() => {
    setPicked(new Set());
  }, [letters.first]);
  // Another place of the same page: a link to it, a step back.
  useEffect(() => setFilter(filterOf(query)), [query]);

  const change = (part: Partial<LetterFilter>) => {
    const next = { ...filter, ...part };
    setPicked(new Set());
    setFilter(next);
    setQuery({ ...next });
  };
  const toggle = (name: string) =>
    setPicked((now) => {
      const next = new Set(now);
      if (!next.delete(name)) next.add(name);
      return next;
    });

  const ask = async (verb: Verb, all: boolean) => {
    if (!all) {
      setWish({ verb, filter: null, number: picked.size });
      return;
    }
    try {
      const fitting = { ...members(filter), until_ms: gatewayNow() };
      setWish({ verb, filter: fitting, number: await countLetters(fitting, letters.loading ? null : letters.data?.total) });
    } catch (thrown) {
      sayProblem(thrown);
    }
  };
  const act = async ({ verb, filter: fitting, number }: Wish) => {
    stop.current = false;
    setWish(null);
    setWork({ verb, of: number, done: 0, refused: [] });
    const tell = (progress: Progress) => setWork({ verb, of: number, ...progress });
    try {
      const chosen = (letters.data?.letters ?? []).filter((one) => picked.has(one.name));
      const end = await (fitting ? changeAll(verb, fitting, tell, () => stop.current) : changeEach(verb, chosen, tell, () => stop.current));
      say(`${plural(end.done, "dead letter")} ${DONE[verb]}`);
      const first = end.refused[0];
      if (first) sayProblem(new Error(`${plural(end.refused.length, "dead letter")} stayed. ${first.name}: ${first.message}`));
    } catch (thrown) {
      sayProblem(thrown);
    } finally {
      setWork(null);
      setPicked(new Set());
      await reload();
    }
  };

  return (
    <Page
      title="Dead letters"
      lead="Requests whose delivery ended for good, with the message that they came of."
      tools={
        <>
          <button type="button" onClick={() => void reload()}>
            <Icon name="refresh" /> Look again
          </button>
          <CopyAs
            items={[
              { label: "CLI", does: "list", text: `tidegate dead-letters list${options(filter)}` },
              { label: "CLI", does: "send all that fit again", text: `tidegate dead-letters redrive${options(filter) || " --all"}` },
              { label: "curl", does: "list", text: curl("GET", withQuery(path("dead-letters"), members(filter))) },
              { label: "curl", does: "send all that fit again", text: curl("POST", path("dead-letters", "redrive"), { filter: members(filter) }) },
            ]}
          />
        </>
      }
    >
      <div class="filters">
        <label class="field">
          <span>Rule</span>
          <input value={filter.rule} placeholder="its whole name" onChange={(event) => change({ rule: event.currentTarget.value.trim() })} />
        </label>
        <label class="field">
          <span>Action</span>
          <input value={filter.action} placeholder="its whole name" onChange={(event) => change({ action: event.currentTarget.value.trim() })} />
        </label>
        <label class="field">
          <span>Cause</span>
          <select value={filter.cause} onChange={(event) => change({ cause: event.currentTarget.value })}>
            <option value="">any</option>
            {CAUSES.map((cause) => (
              <option key={cause} value={cause}>
                {words(cause)}
              </option>
            ))}
          </select>
        </label>
        <label class="field">
          <span>Ended within</span>
          <select value={filter.since} onChange={(event) => change({ since: event.currentTarget.value })}>
            <option value="">any time</option>
            {Object.keys(SINCE).map((name) => (
              <option key={name}>{name}</option>
            ))}
          </select>
        </label>
      </div>
      <Loaded of={letters}>
        {(data) =>
          data.letters.length === 0 ? (
            <Empty title="No dead letters">
              <p>{isFiltered ? "None fits the filter." : "Every request has been delivered, waits, or was dropped on purpose."}</p>
              {isFiltered && (
                <button type="button" onClick={() => change(NO_FILTER)}>
                  Show all dead letters
                </button>
              )}
            </Empty>
          ) : (
            <>
              {mayChange && (
                <div class="bulk">
                  <label class="check">
                    <input
                      type="checkbox"
                      checked={picked.size === data.letters.length}
                      onChange={(event) => setPicked(event.currentTarget.checked ? new Set(data.letters.map((one) => one.name)) : new Set())}
                    />
                    {picked.size ? `${count(picked.size)} picked` : "pick all that are shown"}
                  </label>
                  <button type="button" disabled={busy || picked.size === 0} onClick={() => void act({ verb: "redrive", filter: null, number: picked.size })}>
                    <Icon name="refresh" /> Redrive picked
                  </button>
                  <button type="button" class="danger-quiet" disabled={busy || picked.size === 0} onClick={() => void ask("drop", false)}>
                    <Icon name="trash" /> Drop picked…
                  </button>
                  <button type="button" disabled={busy} onClick={() => void ask("redrive", true)}>
                    Redrive all that fit…
                  </button>
                  <button type="button" class="danger-quiet" disabled={busy} onClick={() => void ask("drop", true)}>
                    Drop all that fit…
                  </button>
                  {work && (
                    <span class="work" role="status">
                      <progress max={Math.max(work.of, work.done, 1)} value={work.done} aria-label={`${count(work.done)} of ${count(work.of)} ${DONE[work.verb]}`} />
                      {count(work.done)} of {count(work.of)} {DONE[work.verb]}
                      <button type="button" onClick={() => (stop.current = true)}>
                        Stop
                      </button>
                    </span>
                  )}
                </div>
              )}
              <div class="scroll">
                <table class="table cards">
                  <thead>
                    <tr>
                      {mayChange && (
                        <th scope="col">
                          <span class="hidden">Pick</span>
                        </th>
                      )}
                      <th scope="col">Letter</th>
                      <th scope="col">Cause</th>
                      <th scope="col">Topic</th>
                      <th scope="col" class="number">Attempts</th>
                      <th scope="col">Ended</th>
                    </tr>
                  </thead>
                  <tbody>
                    {data.letters.map((letter) => (
                      <tr key={letter.name}>
                        {mayChange && (
                          <td data-label="Pick">
                            <input type="checkbox" aria-label={`Pick ${letter.name}`} checked={picked.has(letter.name)} onChange={() => toggle(letter.name)} />
                          </td>
                        )}
                        <td data-label="Letter" class="main-cell">
                          {mayOpen ? (
                            <a class="strong" href={href("dead-letters", letter.rule, letter.action, positionOf(letter))}>
                              {letter.name}
                            </a>
                          ) : (
                            <strong>{letter.name}</strong>
                          )}
                          <div class="row-more">{letter.error}</div>
                        </td>
                        <td data-label="Cause">{words(letter.cause)}</td>
                        <td data-label="Topic" class="mono">
                          {letter.topic ?? "–"}
                        </td>
                        <td data-label="Attempts" class="number">
                          {letter.attempts ?? "–"}
                        </td>
                        <td data-label="Ended">
                          <Time ms={letter.ended_at_ms} none="–" />
                        </td>
                      </tr>
                    ))}
                  </tbody>
                </table>
              </div>
              <ListFoot of={letters} shown={data.letters.length} what="dead letter" total={data.total} />
            </>
          )
        }
      </Loaded>
      {wish?.verb === "drop" && (
        <Confirm
          title="Drop dead letters?"
          act={`Drop ${plural(wish.number, "dead letter")}`}
          dangerous
          typed={String(wish.number)}
          typedLabel={`Type ${wish.number} to drop them`}
          onConfirm={() => act(wish)}
          onClose={() => setWish(null)}
        >
          <p>
            <strong>{plural(wish.number, "dead letter")}</strong> and their messages will be gone{wish.filter && ", those that are not shown included"}. There is no way back.
          </p>
        </Confirm>
      )}
      {wish?.verb === "redrive" && (
        <Confirm title="Send all again?" act={`Redrive ${plural(wish.number, "dead letter")}`} onConfirm={() => act(wish)} onClose={() => setWish(null)}>
          <p>
            <strong>{plural(wish.number, "dead letter")}</strong>, those that are not shown included, go back into the queues of their actions. What fails anew comes back here.
          </p>
        </Confirm>
      )}
    </Page>
  );
}

function filterOf(query: URLSearchParams): LetterFilter {
  const of = (name: string) => query.get(name) ?? "";
  return { rule: of("rule"), action: of("action"), cause: of("cause"), since: of("since") };
}
