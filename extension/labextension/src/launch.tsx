import type { TranslationBundle } from '@jupyterlab/translation';
import { HTMLSelect } from '@jupyterlab/ui-components';
import * as React from 'react';

import type { ILaunchRequest, IRegistration } from './api.js';
import {
  DRAFT_MODEL,
  find,
  firstChoices,
  launchRequest,
  LOCAL_FILE,
  quantizationsOf,
  sizesOf,
  withModel,
  withSize,
  type IChoices
} from './choices.js';
import { ErrorMessage } from './message.js';
import { messageOf } from './errors.js';
import { Field, TextField } from './field.js';
import { formatTokens } from './format.js';

interface ILaunchProps {
  /** Rejects with the server's reason. */
  launch: (request: ILaunchRequest) => Promise<string>;
  registrations: readonly IRegistration[];
  trans: TranslationBundle;
}

/** The form that launches a model: which one, in which quantization, and, folded, how. */
export function LaunchForm({ launch, registrations, trans }: ILaunchProps): React.JSX.Element {
  const [choices, setChoices] = React.useState(() => firstChoices(registrations));
  const [isLaunching, setIsLaunching] = React.useState(false);
  const [problem, setProblem] = React.useState('');
  const end = React.useRef<HTMLButtonElement>(null);

  React.useEffect(() => {
    if (problem) {
      // The reason has just pushed the button down, maybe both out of sight.
      end.current?.scrollIntoView({ block: 'nearest' });
    }
  }, [problem]);

  const change = (changed: IChoices): void => {
    setChoices(changed);
    setProblem('');
  };
  const submit = async (): Promise<void> => {
    setIsLaunching(true);
    setProblem('');
    try {
      await launch(launchRequest(choices, registrations));
      // The next model needs a name of its own.
      setChoices({ ...choices, uid: '' });
    } catch (error) {
      setProblem(messageOf(error));
    } finally {
      setIsLaunching(false);
    }
  };

  return (
    <form
      className="jp-xinfer-Launch"
      data-xinfer="launch-form"
      onSubmit={event => {
        event.preventDefault();
        void submit();
      }}
    >
      <ModelFields
        choices={choices}
        onChange={change}
        registrations={registrations}
        trans={trans}
      />
      <AdvancedFields
        choices={choices}
        onChange={change}
        registrations={registrations}
        trans={trans}
      />
      {problem && <ErrorMessage message={problem} />}
      <button
        ref={end}
        type="submit"
        className="jp-mod-styled jp-mod-accept jp-xinfer-LaunchButton"
        data-xinfer="launch-button"
        disabled={isLaunching}
      >
        {isLaunching ? trans.__('Launching…') : trans.__('Launch')}
      </button>
    </form>
  );
}

interface IFieldsProps {
  choices: IChoices;
  onChange: (changed: IChoices) => void;
  registrations: readonly IRegistration[];
  trans: TranslationBundle;
}

function ModelFields({ choices, onChange, registrations, trans }: IFieldsProps): React.JSX.Element {
  const sizes = sizesOf(choices.model, registrations);
  const quantizations = quantizationsOf(choices.model, choices.size, registrations);
  const names = registrations.map(registration => ({ value: registration.model_name }));
  return (
    <>
      <Field
        label={trans.__('Model')}
        note={find(choices.model, registrations)?.model_description}
        input={
          <HTMLSelect
            data-xinfer="model-select"
            value={choices.model}
            options={[...names, { value: LOCAL_FILE, label: trans.__('Local GGUF file…') }]}
            onChange={event => onChange(withModel(choices, event.target.value, registrations))}
          />
        }
      />
      {choices.model === LOCAL_FILE && (
        <TextField
          label={trans.__('Path')}
          note={trans.__('A file that the nodes of the cluster can read')}
          name="path-input"
          placeholder="/models/my-model-Q4_K_M.gguf"
          required
          value={choices.path}
          onChange={path => onChange({ ...choices, path })}
        />
      )}
      {sizes.length > 1 && (
        <Field
          label={trans.__('Size')}
          input={
            <HTMLSelect
              data-xinfer="size-select"
              value={choices.size}
              options={sizes.map(size => ({
                value: size,
                label: trans.__('%1B parameters', size.replace('_', '.'))
              }))}
              onChange={event => onChange(withSize(choices, event.target.value, registrations))}
            />
          }
        />
      )}
      {choices.model !== LOCAL_FILE && (
        <Field
          label={trans.__('Quantization')}
          input={
            <HTMLSelect
              data-xinfer="quantization-select"
              value={choices.quantization}
              options={quantizations}
              onChange={event => onChange({ ...choices, quantization: event.target.value })}
            />
          }
        />
      )}
    </>
  );
}

function AdvancedFields({
  choices,
  onChange,
  registrations,
  trans
}: IFieldsProps): React.JSX.Element {
  const longest = find(choices.model, registrations)?.context_length;
  return (
    <details className="jp-xinfer-Advanced">
      <summary>{trans.__('Advanced')}</summary>
      <TextField
        label={trans.__('UID')}
        note={trans.__('The name that requests use; empty for the name of the model')}
        name="uid-input"
        pattern="[A-Za-z0-9._\-]+"
        title={trans.__('Letters, digits, dots, dashes and underscores')}
        value={choices.uid}
        onChange={uid => onChange({ ...choices, uid })}
      />
      <TextField
        label={trans.__('Replicas')}
        name="replicas-input"
        type="number"
        min={1}
        required
        value={choices.replicas}
        onChange={replicas => onChange({ ...choices, replicas })}
      />
      <TextField
        label={trans.__('Context length')}
        note={
          longest
            ? trans.__('In tokens, at most %1; empty for what fits', formatTokens(longest))
            : trans.__('In tokens; empty for what fits')
        }
        name="context-length-input"
        type="number"
        min={1}
        max={longest ?? undefined}
        value={choices.contextLength}
        onChange={contextLength => onChange({ ...choices, contextLength })}
      />
      <Field
        label={trans.__('Guess tokens')}
        note={trans.__('Faster where guesses are right; answers stay the same')}
        input={
          <HTMLSelect
            data-xinfer="speculation-select"
            value={choices.speculation}
            options={[
              { value: '', label: trans.__('No') },
              { value: 'prompt-lookup', label: trans.__('From the text so far') },
              { value: DRAFT_MODEL, label: trans.__('With a smaller model') }
            ]}
            onChange={event => onChange({ ...choices, speculation: event.target.value })}
          />
        }
      />
      {choices.speculation === DRAFT_MODEL && (
        <TextField
          label={trans.__('Smaller model')}
          note={trans.__('A name, or a GGUF file on the nodes, of the same vocabulary')}
          name="draft-model-input"
          required
          value={choices.draftModel}
          onChange={draftModel => onChange({ ...choices, draftModel })}
        />
      )}
    </details>
  );
}
