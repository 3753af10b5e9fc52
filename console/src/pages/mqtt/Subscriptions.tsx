// The page's Subscriptions: kept while disconnected, and made anew with the connection.
import { useState } from "preact/hooks";
import { Icon } from "../../components/icons";

export interface Wanted {
  filter: string;
  qos: number;
}

interface Props {
  wanted: Wanted[];
  onAdd: (one: Wanted) => void;
  onRemove: (filter: string) => void;
}

export function Subscriptions({ wanted, onAdd, onRemove }: Props) {
  const [filter, setFilter] = useState("");
  const [qos, setQos] = useState(0);
  return (
    <>
      <form
        class="subscribe-form"
        onSubmit={(event) => {
          event.preventDefault();
          if (!filter) return;
          onAdd({ filter, qos });
          setFilter("");
        }}
      >
        <label class="field grow">
          <span>Topic Filter</span>
          <input class="mono" value={filter} placeholder="sensors/#" spellcheck={false} onInput={(event) => setFilter(event.currentTarget.value)} />
        </label>
        <label class="field narrow">
          <span>QoS</span>
          <select value={qos} onChange={(event) => setQos(Number(event.currentTarget.value))}>
            <option value={0}>0</option>
            <option value={1}>1</option>
            <option value={2}>2</option>
          </select>
        </label>
        <button type="submit" disabled={!filter}>
          Subscribe
        </button>
      </form>
      <ul class="rows">
        {wanted.map((one) => (
          <li key={one.filter} class="row-head">
            <span class="mono strong cut">{one.filter}</span>
            <span class="faint">QoS {one.qos}</span>
            <button type="button" class="quiet push" onClick={() => onRemove(one.filter)}>
              <Icon name="cross" size={14} />
              <span class="hidden">Unsubscribe from {one.filter}</span>
            </button>
          </li>
        ))}
      </ul>
    </>
  );
}
