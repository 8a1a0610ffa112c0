import * as React from 'react';

interface IFieldProps {
  /** One form control. */
  input: React.JSX.Element;
  label: string;
  note?: string | undefined;
}

/** A labelled form control with an explanation under it. */
export function Field({ input, label, note }: IFieldProps): React.JSX.Element {
  const noteId = React.useId();
  return (
    <div className="jp-xinfer-Field">
      <label>
        <span className="jp-xinfer-Field-label">{label}</span>
        {note ? React.cloneElement(input, { 'aria-describedby': noteId }) : input}
      </label>
      {note && (
        <span id={noteId} className="jp-xinfer-note">
          {note}
        </span>
      )}
    </div>
  );
}

interface ITextFieldProps extends Omit<React.InputHTMLAttributes<HTMLInputElement>, 'onChange'> {
  label: string;
  /** The value of `data-xinfer`. */
  name: string;
  note?: string;
  onChange: (value: string) => void;
  value: string;
}

/** A labelled line of text or a number. */
export function TextField(props: ITextFieldProps): React.JSX.Element {
  const { label, name, note, onChange, ...attributes } = props;
  return (
    <Field
      label={label}
      note={note}
      input={
        <input
          {...attributes}
          className="jp-mod-styled"
          data-xinfer={name}
          autoComplete="off"
          spellCheck={false}
          onChange={event => onChange(event.target.value)}
        />
      }
    />
  );
}
