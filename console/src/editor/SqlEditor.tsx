// The statement's editor: CodeMirror with the language, completion and findings of the gateway.
import { acceptCompletion, autocompletion, closeBrackets, closeBracketsKeymap, completionKeymap } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap } from "@codemirror/commands";
import { bracketMatching } from "@codemirror/language";
import { type Diagnostic, lintGutter, lintKeymap, setDiagnostics } from "@codemirror/lint";
import { Compartment, EditorState } from "@codemirror/state";
import { drawSelection, EditorView, highlightActiveLine, keymap, lineNumbers, placeholder } from "@codemirror/view";
import { useEffect, useRef } from "preact/hooks";
import type { Language } from "../api/types";
import { completions } from "./complete";
import type { Seen } from "./seen";
import { sqlLanguage } from "./sqlLanguage";

interface Props {
  /** What it begins with. From then on the editor has the text, and tells of it: another rule is another editor. */
  initial: string;
  language: Language;
  seen: Seen;
  diagnostics: Diagnostic[];
  readOnly: boolean;
  onChange: (value: string) => void;
  onSave?: () => void;
}

export function SqlEditor(props: Props) {
  const box = useRef<HTMLDivElement>(null);
  const view = useRef<EditorView | null>(null);
  const latest = useRef(props);
  latest.current = props;
  const { language, diagnostics, readOnly } = props;
  const writable = useRef(new Compartment());
  const colours = useRef(new Compartment());

  useEffect(() => {
    if (!box.current) return;
    const editor = new EditorView({
      parent: box.current,
      state: EditorState.create({
        doc: latest.current.initial,
        extensions: [
          EditorView.cspNonce.of(nonce()),
          lineNumbers(),
          history(),
          drawSelection(),
          highlightActiveLine(),
          bracketMatching(),
          closeBrackets(),
          lintGutter(),
          autocompletion({
            override: [completions(() => ({ language: latest.current.language, seen: latest.current.seen }))],
            icons: false,
            optionClass: (completion) => `option-${completion.type ?? "other"}`,
          }),
          keymap.of([
            { key: "Mod-s", preventDefault: true, run: () => (latest.current.onSave?.(), true) },
            // Without a list of completions Tab leaves the editor, as it leaves every field.
            { key: "Tab", run: acceptCompletion },
            ...closeBracketsKeymap,
            ...completionKeymap,
            ...lintKeymap,
            ...defaultKeymap,
            ...historyKeymap,
          ]),
          EditorView.domEventHandlers({ beforeinput: typeOver }),
          placeholder("SELECT … FROM 'topic/+' WHERE …"),
          EditorView.lineWrapping,
          EditorView.contentAttributes.of({ "aria-label": "SQL statement", spellcheck: "false", autocapitalize: "none" }),
          writable.current.of(lock(latest.current.readOnly)),
          colours.current.of(sqlLanguage(latest.current.language)),
          EditorView.updateListener.of((update) => {
            if (update.docChanged) latest.current.onChange(update.state.doc.toString());
          }),
        ],
      }),
    });
    view.current = editor;
    return () => editor.destroy();
  }, []);

  useEffect(() => {
    const editor = view.current;
    if (!editor) return;
    const end = editor.state.doc.length;
    const fitting = diagnostics.filter((one) => one.to <= end);
    editor.dispatch(setDiagnostics(editor.state, fitting));
  }, [diagnostics]);

  useEffect(() => {
    view.current?.dispatch({ effects: writable.current.reconfigure(lock(readOnly)) });
  }, [readOnly]);

  useEffect(() => {
    view.current?.dispatch({ effects: colours.current.reconfigure(sqlLanguage(language)) });
  }, [language]);

  return <div class="sql-editor" ref={box} />;
}

/** Text that is typed over a selection is put in here: the browser would give it the selection's colour by a style that the page's policy
 * refuses. */
function typeOver(event: InputEvent, view: EditorView): boolean {
  const { from, to, empty } = view.state.selection.main;
  const text = event.data;
  if (empty || !text || event.inputType !== "insertText" || view.composing || view.state.readOnly) return false;
  event.preventDefault();
  const insert = () =>
    view.state.update({ changes: { from, to, insert: text }, selection: { anchor: from + text.length }, userEvent: "input.type", scrollIntoView: true });
  const isTaken = view.state.facet(EditorView.inputHandler).some((handler) => handler(view, from, to, text, insert));
  if (!isTaken) view.dispatch(insert());
  return true;
}

function lock(readOnly: boolean) {
  return [EditorState.readOnly.of(readOnly), EditorView.editable.of(!readOnly)];
}

/** CodeMirror makes its styles at run time; the page's policy lets those in that carry its nonce. */
function nonce(): string {
  return document.querySelector<HTMLMetaElement>('meta[name="csp-nonce"]')?.content ?? "";
}
