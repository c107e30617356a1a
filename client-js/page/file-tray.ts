/** The files that will go along with the next message: chosen, pasted or dropped. */

import type { Turn } from "../src/reducer.js";
import {
  attach,
  AttachmentError,
  sent,
  size,
  type Attachment,
  type AttachmentLimits,
  type SentAttachment,
} from "./attachments.js";

export interface FileTray {
  files: readonly Attachment[];
  /** Why the last file was not taken, for people. */
  fileProblem: string;
  /** True while files hover over the page. */
  isDropping: boolean;
  readonly canAttach: boolean;
  /** The kinds that a dialog offers. */
  readonly accepts: string;
  takeFile(file: File): Promise<void>;
  takeAll(files: Iterable<File>): Promise<void>;
  detach(id: number): void;
  /** The options that they are of a message; the tray is empty then. */
  takeFiles(): { readonly attachments?: readonly SentAttachment[] };
  isImage(file: Attachment): boolean;
  sourceOf(file: Attachment): string;
  sizeOf(file: Attachment): string;
  chooseFiles(): void;
  chosen(event: Event): void;
  paste(event: ClipboardEvent): void;
  dragOver(event: DragEvent): void;
  dragLeave(event: DragEvent): void;
  drop(event: DragEvent): void;
}

/** @param limits null if no files are allowed */
export function fileTray(limits: AttachmentLimits | null): FileTray {
  const brings = (event: DragEvent): boolean =>
    limits !== null && (event.dataTransfer?.types.includes("Files") ?? false);

  return {
    files: [],
    fileProblem: "",
    isDropping: false,
    canAttach: limits !== null,
    accepts: limits?.media_types.join(",") ?? "",

    async takeFile(file) {
      if (!limits) return;
      try {
        const taken = await attach(file, limits);
        if (this.files.length < limits.max) this.files = [...this.files, taken];
        else this.fileProblem = `At most ${String(limits.max)} files can go along with a message.`;
      } catch (error) {
        if (!(error instanceof AttachmentError)) throw error;
        this.fileProblem = error.message;
      }
    },

    async takeAll(files) {
      this.fileProblem = "";
      for (const file of files) await this.takeFile(file);
    },

    detach(id) {
      this.files = this.files.filter((file) => file.id !== id);
      this.fileProblem = "";
    },

    takeFiles() {
      const attachments = this.files.map(sent);
      this.files = [];
      this.fileProblem = "";
      return attachments.length > 0 ? { attachments } : {};
    },

    isImage: ({ media_type }) => media_type.startsWith("image/"),
    sourceOf: ({ media_type, data }) => `data:${media_type};base64,${data}`,
    sizeOf: ({ bytes }) => size(bytes),

    chooseFiles() {
      document.getElementById("files")?.click();
    },

    chosen(event) {
      const input = event.target as HTMLInputElement;
      const files = [...(input.files ?? [])];
      input.value = ""; // so that the same file can be chosen again
      void this.takeAll(files);
    },

    paste(event) {
      const files = [...(event.clipboardData?.files ?? [])];
      if (!limits || files.length === 0) return;
      event.preventDefault();
      void this.takeAll(files);
    },

    dragOver(event) {
      if (!brings(event)) return;
      event.preventDefault();
      this.isDropping = true;
    },

    dragLeave(event) {
      if (event.relatedTarget === null) this.isDropping = false;
    },

    drop(event) {
      if (!brings(event)) return;
      event.preventDefault();
      this.isDropping = false;
      void this.takeAll([...(event.dataTransfer?.files ?? [])]);
    },
  };
}

export interface ShownFile {
  readonly key: string;
  readonly title: string;
  /** Null for what is no image. */
  readonly src: string | null;
}

/** What went along with a message, as far as this tab knows: the server does not keep it. */
export function filesOf(turn: Turn): readonly ShownFile[] {
  const attachments = turn.role === "user" ? turn.options?.["attachments"] : undefined;
  if (!Array.isArray(attachments)) return [];
  return (attachments as SentAttachment[]).map(({ type, media_type, data, title }, index) => ({
    key: String(index),
    title,
    src: type === "image" ? `data:${media_type};base64,${data}` : null,
  }));
}
