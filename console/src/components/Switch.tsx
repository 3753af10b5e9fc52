// An on/off switch: a checkbox that looks like one.
interface Props {
  label: string;
  checked: boolean;
  disabled?: boolean;
  /** Whether the label is seen, or only read out. */
  shown?: boolean;
  onChange: (checked: boolean) => void;
}

export function Switch({ label, checked, disabled, shown, onChange }: Props) {
  return (
    <label class="switch">
      <input
        type="checkbox"
        role="switch"
        checked={checked}
        disabled={disabled}
        onChange={(event) => onChange(event.currentTarget.checked)}
      />
      <span class="switch-track" aria-hidden="true" />
      <span class={shown ? "" : "hidden"}>{label}</span>
    </label>
  );
}
