/** On a narrow page the list of conversations is a drawer. */
export interface Drawer {
  isDrawerOpen: boolean;
  openDrawer(): void;
  closeDrawer(): void;
}

const find = (selector: string): HTMLElement | null => document.querySelector(selector);

export function drawer(): Drawer {
  return {
    isDrawerOpen: false,

    openDrawer() {
      this.isDrawerOpen = true;
      // Once it is shown: what is hidden takes no focus.
      requestAnimationFrame(() => find('[data-testid="side-new"]')?.focus());
    },

    closeDrawer() {
      if (!this.isDrawerOpen) return;
      this.isDrawerOpen = false;
      requestAnimationFrame(() => find('[data-testid="menu"]')?.focus());
    },
  };
}
