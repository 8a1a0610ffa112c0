import { Clipboard, Dialog, showDialog } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { CommandRegistry } from '@lumino/commands';

import type { IModel } from './api.js';
import type { PanelModel } from './model.js';
import { connectionCode } from './snippet.js';

// Commands of JupyterLab's notebook; where there are none, such as in a plain file editor, the button is disabled.
const INSERT_CELL = 'notebook:insert-cell-below';
const REPLACE_SELECTION = 'notebook:replace-selection';

/** What the buttons of a model's card do. */
export class ModelActions {
  constructor(
    private readonly _model: PanelModel,
    private readonly _commands: CommandRegistry,
    private readonly _trans: TranslationBundle
  ) {}

  /** Stop a model. Rejects with the server's reason. */
  async stop(model: IModel): Promise<void> {
    await this._model.terminate(model.id);
  }

  /** Whether to stop a model: asks if that would end answers. */
  async confirmStop(model: IModel): Promise<boolean> {
    const trans = this._trans;
    const requests = model.running + model.waiting;
    if (requests === 0) {
      return true;
    }
    const result = await showDialog({
      title: trans.__('Stop %1?', model.id),
      body: trans._n(
        'It is answering %1 request, which would end unfinished.',
        'It is answering %1 requests, which would end unfinished.',
        requests
      ),
      buttons: [
        Dialog.cancelButton({ label: trans.__('Keep running') }),
        Dialog.warnButton({ label: trans.__('Stop') })
      ],
      defaultButton: 0
    });
    return result.button.accept;
  }

  async copyCode(model: IModel): Promise<void> {
    const code = connectionCode(model);
    if (window.isSecureContext) {
      await navigator.clipboard.writeText(code);
    } else {
      // Without TLS, and not on this machine, browsers offer no clipboard but that of an edit command.
      Clipboard.copyToSystem(code);
    }
  }

  get canInsert(): boolean {
    return this._commands.hasCommand(INSERT_CELL) && this._commands.isEnabled(INSERT_CELL);
  }

  /** Put the connection code into a new cell of the current notebook. */
  async insertCode(model: IModel): Promise<void> {
    await this._commands.execute(INSERT_CELL);
    await this._commands.execute(REPLACE_SELECTION, { text: connectionCode(model) });
  }
}
