import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { ICommandPalette } from '@jupyterlab/apputils';
import type { ILauncher } from '@jupyterlab/launcher';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { Widget } from '@lumino/widgets';

import { xinferIcon } from './icons.js';

const OPEN = 'jupyter-xinfer:open-panel';

/** The command that shows the panel, wherever commands are offered. */
export function addOpenCommand(
  app: JupyterFrontEnd,
  panel: Widget,
  trans: TranslationBundle,
  palette: ICommandPalette | null,
  launcher: ILauncher | null
): void {
  app.commands.addCommand(OPEN, {
    // A launcher card is short of space and has the icon.
    label: args => (args.isLauncher ? trans.__('XInfer models') : trans.__('XInfer: Open panel')),
    caption: trans.__('Run language models and watch them'),
    icon: args => (args.isPalette ? undefined : xinferIcon),
    execute: () => app.shell.activateById(panel.id)
  });
  palette?.addItem({ command: OPEN, category: 'XInfer', args: { isPalette: true } });
  launcher?.add({
    command: OPEN,
    category: trans.__('Other'),
    rank: 10,
    args: { isLauncher: true }
  });
}
