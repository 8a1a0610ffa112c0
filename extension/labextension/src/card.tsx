import type { TranslationBundle } from '@jupyterlab/translation';
import { addBelowIcon, copyIcon, stopIcon } from '@jupyterlab/ui-components';
import * as React from 'react';

import type { ModelActions } from './actions.js';
import type { IModel, IReplica } from './api.js';
import { ErrorMessage } from './message.js';
import { messageOf } from './errors.js';
import {
  formatBytes,
  formatMilliseconds,
  formatPercent,
  formatRate,
  formatTokens
} from './format.js';
import { Replicas } from './replicas.js';
import { Sparkline } from './sparkline.js';
import { ModelStateBadge } from './state.js';

interface ICardProps {
  actions: ModelActions;
  model: IModel;
  /** Recent tokens per second, oldest first. */
  rates: readonly number[];
  trans: TranslationBundle;
}

/** One model: what it is, how it is, what it does now, and what can be done with it. */
export function ModelCard(props: ICardProps): React.JSX.Element {
  const { actions, model, rates, trans } = props;
  const isStarting = ['placing', 'downloading', 'loading'].includes(model.state);
  return (
    <li
      className="jp-xinfer-Card"
      data-xinfer="model-card"
      data-model-uid={model.id}
      data-state={model.state}
      aria-label={model.id}
    >
      <header className="jp-xinfer-Card-header">
        <h4 className="jp-xinfer-Card-name" title={model.id}>
          {model.id}
        </h4>
        <ModelStateBadge state={model.state} trans={trans} />
      </header>
      <Facts model={model} trans={trans} />
      {isStarting && <Progress model={model} trans={trans} />}
      {model.state === 'failed' && (
        <ErrorMessage message={model.message || trans.__('The server gave no reason.')} />
      )}
      {!isStarting && model.state !== 'failed' && (
        <>
          <Load model={model} trans={trans} />
          <Sparkline values={rates} />
        </>
      )}
      <Replicas model={model} trans={trans} />
      <Buttons actions={actions} model={model} trans={trans} />
    </li>
  );
}

function Facts({ model, trans }: { model: IModel; trans: TranslationBundle }): React.JSX.Element {
  const facts = [
    model.model_name === model.id ? '' : model.model_name,
    kindOf(model, trans),
    model.model_engine,
    model.quantization ?? '',
    model.context_length ? trans.__('%1 context', formatTokens(model.context_length)) : '',
    model.memory_bytes ? formatBytes(model.memory_bytes) : ''
  ];
  // Lines break between facts, not inside of one.
  const unbroken = facts.filter(Boolean).map(fact => fact.replaceAll(' ', '\u00a0'));
  return (
    <p className="jp-xinfer-Card-facts" title={model.model_path ?? ''}>
      {unbroken.join(' · ')}
    </p>
  );
}

/** What the model is for, where that is not text. */
function kindOf(model: IModel, trans: TranslationBundle): string {
  switch (model.model_type) {
    case 'embedding':
      return trans.__('embedding model');
    case 'rerank':
      return trans.__('reranker');
    default:
      return '';
  }
}

function Progress({
  model,
  trans
}: {
  model: IModel;
  trans: TranslationBundle;
}): React.JSX.Element {
  // Nothing can be measured before the first byte is read.
  const percent = model.progress > 0 ? Math.round(model.progress * 100) : null;
  const stage = model.replicas.find(replica => replica.message)?.message;
  const download = model.replicas.find(replica => replica.bytes_total > 0);
  const bytes = download
    ? trans.__('%1 of %2', formatBytes(download.bytes_done), formatBytes(download.bytes_total))
    : '';
  return (
    <div className="jp-xinfer-Progress">
      <div
        className={`jp-xinfer-Progress-track${percent === null ? ' jp-mod-indeterminate' : ''}`}
        role="progressbar"
        aria-label={trans.__('Loading %1', model.id)}
        aria-valuemin={0}
        aria-valuemax={100}
        aria-valuenow={percent ?? undefined}
      >
        <div className="jp-xinfer-Progress-bar" style={{ width: `${percent ?? 30}%` }} />
      </div>
      <span className="jp-xinfer-note">
        {[percent === null ? '' : formatPercent(percent / 100), stage, bytes]
          .filter(Boolean)
          .join(' · ') || trans.__('Waiting for a place')}
      </span>
    </div>
  );
}

function Load({ model, trans }: { model: IModel; trans: TranslationBundle }): React.JSX.Element {
  const sum = (value: (replica: IReplica) => number): number =>
    model.replicas.reduce((total, replica) => total + value(replica), 0);
  const cacheTotal = sum(replica => replica.kv_total);
  const prompts = sum(replica => replica.prompt_tokens);
  const drafted = sum(replica => replica.drafted_tokens);
  const step = Math.max(0, ...model.replicas.map(replica => replica.step_seconds));
  return (
    <dl className="jp-xinfer-Load">
      <div>
        <dt>{trans.__('tokens/s')}</dt>
        <dd data-xinfer="tokens-per-second">{formatRate(model.tokens_per_second)}</dd>
      </div>
      <div>
        <dt>{trans.__('running')}</dt>
        <dd data-xinfer="running">{model.running}</dd>
      </div>
      <div>
        <dt>{trans.__('waiting')}</dt>
        <dd data-xinfer="waiting">{model.waiting}</dd>
      </div>
      {cacheTotal > 0 && (
        <div title={trans.__('Part of the KV cache that holds tokens of running requests')}>
          <dt>{trans.__('KV cache')}</dt>
          <dd>{formatPercent(sum(replica => replica.kv_used) / cacheTotal)}</dd>
        </div>
      )}
      {step > 0 && (
        <div
          title={trans.__('Mean time of the last steps, which give each running request a token')}
        >
          <dt>{trans.__('step')}</dt>
          <dd data-xinfer="step">{formatMilliseconds(step)}</dd>
        </div>
      )}
      {prompts > 0 && (
        <div title={trans.__('Part of all prompts that was in the KV cache')}>
          <dt>{trans.__('prefix hits')}</dt>
          <dd data-xinfer="prefix-hits">
            {formatPercent(Math.min(1, sum(replica => replica.cached_tokens) / prompts))}
          </dd>
        </div>
      )}
      {drafted > 0 && (
        <div title={trans.__('Part of the guessed tokens that came')}>
          <dt>{trans.__('guesses right')}</dt>
          <dd data-xinfer="acceptance">
            {formatPercent(sum(replica => replica.accepted_tokens) / drafted)}
          </dd>
        </div>
      )}
    </dl>
  );
}

function Buttons(props: Omit<ICardProps, 'rates'>): React.JSX.Element {
  const { actions, model, trans } = props;
  const [isStopping, setIsStopping] = React.useState(false);
  const [isCopied, setIsCopied] = React.useState(false);
  const [problem, setProblem] = React.useState('');

  React.useEffect(() => {
    if (!isCopied) {
      return undefined;
    }
    const timer = window.setTimeout(() => setIsCopied(false), 2000);
    return () => window.clearTimeout(timer);
  }, [isCopied]);

  const attempt = (action: () => Promise<void>): void => {
    setProblem('');
    action().catch((error: unknown) => setProblem(messageOf(error)));
  };
  const stop = async (): Promise<void> => {
    if (!(await actions.confirmStop(model))) {
      return;
    }
    setIsStopping(true);
    try {
      await actions.stop(model);
    } finally {
      setIsStopping(false);
    }
  };
  const copy = async (): Promise<void> => {
    await actions.copyCode(model);
    setIsCopied(true);
  };
  const stopLabel = model.state === 'failed' ? trans.__('Remove') : trans.__('Stop');

  return (
    <>
      {problem && <ErrorMessage message={problem} />}
      <div className="jp-xinfer-Card-buttons">
        {model.state === 'ready' && (
          <>
            <button
              type="button"
              className="jp-xinfer-TextButton"
              data-xinfer="copy-code-button"
              title={trans.__('Copy Python that connects to this model')}
              onClick={() => attempt(copy)}
            >
              <copyIcon.react tag="span" className="jp-xinfer-Button-icon" aria-hidden="true" />
              <span aria-live="polite">
                {isCopied ? trans.__('Copied') : trans.__('Copy code')}
              </span>
            </button>
            <button
              type="button"
              className="jp-xinfer-TextButton"
              data-xinfer="insert-code-button"
              disabled={!actions.canInsert}
              title={trans.__('Insert Python that connects to this model into the open notebook')}
              onClick={() => attempt(() => actions.insertCode(model))}
            >
              <addBelowIcon.react tag="span" className="jp-xinfer-Button-icon" aria-hidden="true" />
              {trans.__('Insert')}
            </button>
          </>
        )}
        <button
          type="button"
          className="jp-xinfer-TextButton jp-xinfer-StopButton"
          data-xinfer="stop-button"
          aria-label={`${stopLabel} ${model.id}`}
          disabled={isStopping || model.state === 'draining'}
          onClick={() => attempt(stop)}
        >
          <stopIcon.react tag="span" className="jp-xinfer-Button-icon" aria-hidden="true" />
          {isStopping ? trans.__('Stopping…') : stopLabel}
        </button>
      </div>
    </>
  );
}
