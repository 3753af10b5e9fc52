// Sets of Subscriptions and a message to publish, kept in this browser under a name.
import { useState } from "preact/hooks";
import { Icon } from "../../components/icons";
import { say } from "../../components/Notices";
import { EMPTY_PUBLISH, type Outgoing } from "./PublishForm";
import type { Wanted } from "./Subscriptions";

export interface SavedSet {
  wanted: Wanted[];
  outgoing: Outgoing;
}

const KEY = "tidegate.mqtt.sets";

/** Sets that are kept. */
const SETS_MAX = 50;

export function SavedSets({ current, onLoad }: { current: SavedSet; onLoad: (set: SavedSet) => void }) {
  const [sets, setSets] = useState<Record<string, SavedSet>>(read);
  const [name, setName] = useState("");
  const keep = (next: Record<string, SavedSet>) => {
    setSets(next);
    localStorage.setItem(KEY, JSON.stringify(next));
  };
  const names = Object.keys(sets).sort();
  return (
    <>
      <form
        class="subscribe-form"
        onSubmit={(event) => {
          event.preventDefault();
          keep({ ...sets, [name.trim()]: current });
          say(`The set ${name.trim()} is kept in this browser`);
          setName("");
        }}
      >
        <label class="field grow">
          <span>Name of the set</span>
          <input value={name} maxLength={100} onInput={(event) => setName(event.currentTarget.value)} />
        </label>
        <button type="submit" disabled={!name.trim() || (names.length >= SETS_MAX && !(name.trim() in sets))}>
          Save set
        </button>
      </form>
      <ul class="rows">
        {names.map((one) => (
          <li key={one} class="row-head">
            <span class="strong cut">{one}</span>
            <span class="push tools">
              <button
                type="button"
                class="quiet"
                onClick={() => {
                  const set = sets[one];
                  if (set) onLoad(set);
                }}
              >
                Load<span class="hidden"> {one}</span>
              </button>
              <button type="button" class="quiet" onClick={() => keep(Object.fromEntries(Object.entries(sets).filter(([other]) => other !== one)))}>
                <Icon name="trash" />
                <span class="hidden">Remove {one}</span>
              </button>
            </span>
          </li>
        ))}
      </ul>
    </>
  );
}

function read(): Record<string, SavedSet> {
  try {
    const value = JSON.parse(localStorage.getItem(KEY) ?? "{}") as Record<string, Partial<SavedSet>>;
    return Object.fromEntries(
      Object.entries(value).map(([name, set]) => [name, { wanted: set.wanted ?? [], outgoing: { ...EMPTY_PUBLISH, ...set.outgoing } }]),
    );
  } catch {
    return {};
  }
}
