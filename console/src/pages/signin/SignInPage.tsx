// The first thing one sees: sign in, or make the first administrator with the setup token that the gateway printed.
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { api, path } from "../../api/client";
import { asProblem } from "../../api/problem";
import { Icon, Wave } from "../../components/icons";
import { Busy } from "../../components/states";
import { go, route } from "../../routes";
import { connection, endedNotice, session, signIn } from "../../state/session";

export function SignInPage() {
  const [needed, setNeeded] = useState<boolean | null>(null);
  const wantsSetup = route.value.id === "setup";

  useEffect(() => {
    let isHere = true;
    api
      .get<{ needed: boolean }>(path("setup"))
      .then((answer) => isHere && setNeeded(answer.needed))
      .catch(() => isHere && setNeeded(false));
    return () => {
      isHere = false;
    };
  }, [session.value]);

  const isSetup = needed === true || wantsSetup;
  return (
    <main class="gate" id="main" tabIndex={-1}>
      <div class="gate-card">
        <div class="gate-brand">
          <Wave />
          <span>Tidegate</span>
        </div>
        {connection.value === "lost" && (
          <p class="complaint" role="alert">
            <Icon name="plug" /> The gateway does not answer. The page looks for it.
          </p>
        )}
        {needed === null ? <Busy /> : isSetup ? <SetUp onDone={() => setNeeded(false)} /> : <SignIn />}
      </div>
    </main>
  );
}

function SignIn() {
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const form = useSubmit(() => signIn(name, password).then(leaveGate));
  return (
    <form onSubmit={form.submit}>
      <h1>Sign in</h1>
      {endedNotice.value && <p class="hint">{endedNotice.value}</p>}
      <Field label="Name" value={name} onInput={setName} autoComplete="username" isFirst />
      <Field label="Password" value={password} onInput={setPassword} autoComplete="current-password" isSecret />
      <Complaint text={form.complaint} />
      <button type="submit" class="primary wide" disabled={form.busy || !name || !password}>
        Sign in
      </button>
      <p class="hint">
        No user yet? <code>tidegate setup-token</code> makes a token for the first one. <a href="#/setup">Use a setup token</a>
      </p>
    </form>
  );
}

function SetUp({ onDone }: { onDone: () => void }) {
  const [token, setToken] = useState("");
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const [again, setAgain] = useState("");
  const isShort = new TextEncoder().encode(password).length < 12;
  const differs = again !== "" && again !== password;
  const form = useSubmit(async () => {
    await api.post(path("setup"), { setup_token: token.trim(), name, password });
    await signIn(name, password);
    onDone();
    leaveGate();
  });
  return (
    <form onSubmit={form.submit}>
      <h1>Welcome</h1>
      <p>
        Nobody can sign in yet. The gateway printed a <strong>setup token</strong> on its terminal when it started;{" "}
        <code>tidegate setup-token</code> prints another. It makes the first administrator.
      </p>
      <Field label="Setup token" value={token} onInput={setToken} autoComplete="off" placeholder="tds_…" isFirst />
      <Field label="Your name" value={name} onInput={setName} autoComplete="username" />
      <Field label="New password" value={password} onInput={setPassword} autoComplete="new-password" isSecret />
      <p class={password && isShort ? "hint complaint-soft" : "hint"}>At least 12 characters. A sentence is fine.</p>
      <Field label="The password again" value={again} onInput={setAgain} autoComplete="new-password" isSecret />
      {differs && <p class="hint complaint-soft">The two are not the same.</p>}
      <Complaint text={form.complaint} />
      <button type="submit" class="primary wide" disabled={form.busy || !token || !name || isShort || again !== password}>
        Make the first administrator
      </button>
      <p class="hint">
        <a href="#/" onClick={onDone}>
          Sign in with a name and a password
        </a>
      </p>
    </form>
  );
}

function leaveGate(): void {
  if (route.value.id === "setup" || route.value.id === "sign-in") go("#/");
}

function useSubmit(act: () => Promise<void>) {
  const [busy, setBusy] = useState(false);
  const [complaint, setComplaint] = useState<string | null>(null);
  const submit = (event: Event) => {
    event.preventDefault();
    setBusy(true);
    setComplaint(null);
    act()
      .catch((thrown: unknown) => {
        const problem = asProblem(thrown);
        setComplaint(problem.detail || problem.title);
      })
      .finally(() => setBusy(false));
  };
  return { busy, complaint, submit };
}

function Complaint({ text }: { text: string | null }) {
  return (
    <div role="alert">
      {text && (
        <p class="complaint">
          <Icon name="warning" /> {text}
        </p>
      )}
    </div>
  );
}

interface FieldProps {
  label: string;
  value: string;
  onInput: (value: string) => void;
  autoComplete: string;
  placeholder?: string;
  isSecret?: boolean;
  /** Where one begins to type. */
  isFirst?: boolean;
}

function Field({ label, value, onInput, autoComplete, placeholder, isSecret, isFirst }: FieldProps) {
  const id = useId();
  const box = useRef<HTMLInputElement>(null);
  useEffect(() => {
    if (isFirst) box.current?.focus();
  }, []);
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <input
        id={id}
        ref={box}
        type={isSecret ? "password" : "text"}
        value={value}
        autoComplete={autoComplete}
        placeholder={placeholder}
        spellcheck={false}
        autoCapitalize="none"
        onInput={(event) => onInput(event.currentTarget.value)}
      />
    </div>
  );
}
