import { ReactWidget } from '@jupyterlab/ui-components';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { Message } from '@lumino/messaging';
import * as React from 'react';

import type { ModelActions } from './actions.js';
import { ModelCard } from './card.js';
import { ClusterLine } from './cluster.js';
import { ErrorMessage } from './message.js';
import { xinferIcon } from './icons.js';
import { LaunchForm } from './launch.js';
import type { ISnapshot, PanelModel } from './model.js';

/** The side panel: the cluster, the running models, and the form that launches another. */
export class XInferPanel extends ReactWidget {
  constructor(
    private readonly _model: PanelModel,
    private readonly _actions: ModelActions,
    private readonly _trans: TranslationBundle
  ) {
    super();
    this.id = 'jupyter-xinfer-panel';
    this.addClass('jp-xinfer-Panel');
    this.node.dataset.xinfer = 'panel';
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', _trans.__('XInfer models'));
    this.title.icon = xinferIcon;
    this.title.caption = _trans.__('XInfer: run language models');
  }

  override dispose(): void {
    this._model.dispose();
    super.dispose();
  }

  protected override onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    this._model.setVisible(this.isVisible);
  }

  protected override onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this._model.setVisible(true);
  }

  protected override onAfterHide(message: Message): void {
    super.onAfterHide(message);
    this._model.setVisible(false);
  }

  protected override render(): React.JSX.Element {
    return <Content model={this._model} actions={this._actions} trans={this._trans} />;
  }
}

interface IContentProps {
  actions: ModelActions;
  model: PanelModel;
  trans: TranslationBundle;
}

function Content({ actions, model, trans }: IContentProps): React.JSX.Element {
  const snapshot = useSnapshot(model);
  if (snapshot.connection === 'missing') {
    return (
      <ErrorMessage
        message={trans.__(
          'This Jupyter server runs without the server extension jupyter_xinfer. Install jupyter-xinfer in its environment and restart it.'
        )}
      />
    );
  }
  if (snapshot.info === null) {
    return snapshot.connection === 'offline' ? (
      <Offline model={model} problem={snapshot.problem} trans={trans} />
    ) : (
      <p className="jp-xinfer-Empty">{trans.__('Connecting…')}</p>
    );
  }
  const dashboard = snapshot.info.dashboard;
  return (
    <>
      {snapshot.connection === 'offline' && (
        <Offline model={model} problem={snapshot.problem} trans={trans} />
      )}
      <ClusterLine
        info={snapshot.info}
        dashboard={dashboard === null ? null : model.client.pageUrl(dashboard)}
        trans={trans}
      />
      <Section title={trans.__('Models')} count={snapshot.models.length}>
        <Models snapshot={snapshot} actions={actions} trans={trans} />
      </Section>
      <Section title={trans.__('Launch a model')}>
        <LaunchForm
          launch={request => model.launch(request)}
          registrations={snapshot.registrations}
          trans={trans}
        />
      </Section>
    </>
  );
}

function Models(props: {
  actions: ModelActions;
  snapshot: ISnapshot;
  trans: TranslationBundle;
}): React.JSX.Element {
  const { actions, snapshot, trans } = props;
  if (snapshot.models.length === 0) {
    return (
      <p className="jp-xinfer-Empty" data-xinfer="empty">
        {trans.__('No model is running. Launch one below.')}
      </p>
    );
  }
  return (
    <ul className="jp-xinfer-Cards">
      {snapshot.models.map(model => (
        <ModelCard
          key={model.id}
          actions={actions}
          model={model}
          rates={snapshot.rates.get(model.id) ?? []}
          trans={trans}
        />
      ))}
    </ul>
  );
}

function Section(props: {
  children: React.ReactNode;
  count?: number;
  title: string;
}): React.JSX.Element {
  const id = React.useId();
  return (
    <section className="jp-xinfer-Section" aria-labelledby={id}>
      <h3 className="jp-xinfer-Section-title" id={id}>
        {props.title}
        {props.count ? <span className="jp-xinfer-Section-count">{props.count}</span> : null}
      </h3>
      {props.children}
    </section>
  );
}

function Offline(props: {
  model: PanelModel;
  problem: string;
  trans: TranslationBundle;
}): React.JSX.Element {
  const { model, problem, trans } = props;
  return (
    <div className="jp-xinfer-Offline">
      <ErrorMessage message={trans.__('The server cannot be read: %1', problem)} />
      <button
        type="button"
        className="jp-xinfer-TextButton"
        data-xinfer="retry-button"
        onClick={() => void model.refresh()}
      >
        {trans.__('Try again')}
      </button>
    </div>
  );
}

function useSnapshot(model: PanelModel): ISnapshot {
  const subscribe = React.useCallback(
    (onChange: () => void) => {
      model.changed.connect(onChange);
      return () => {
        model.changed.disconnect(onChange);
      };
    },
    [model]
  );
  return React.useSyncExternalStore(subscribe, () => model.snapshot);
}
