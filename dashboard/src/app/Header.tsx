import type { ReactNode } from "react";
import { useTheme } from "./theme";

interface Link {
  href: string;
  label: string;
  current: boolean;
}

/** The bar at the top: name, views, state, and the switch between light and dark. */
export function Header({ kind, links, children }: { kind?: string; links: Link[]; children?: ReactNode }) {
  const { isDark, toggle } = useTheme();
  return (
    <header className="bar">
      <a className="brand" href={links[0]?.href ?? "/"}>
        <img src="/mark.svg" alt="" width="22" height="22" />
        <span>
          hotpath {kind && <span className="kind">{kind}</span>}
        </span>
      </a>
      {links.length > 0 && (
        <nav aria-label="Views">
          {links.map((link) => (
            <a key={link.href} href={link.href} aria-current={link.current ? "page" : undefined}>
              {link.label}
            </a>
          ))}
        </nav>
      )}
      <div className="bar-end">
        {children}
        <button
          type="button"
          className="icon-button"
          onClick={toggle}
          aria-label={isDark ? "Use the light scheme" : "Use the dark scheme"}
          title={isDark ? "Light" : "Dark"}
        >
          <span aria-hidden="true" className={isDark ? "glyph sun" : "glyph moon"} />
        </button>
      </div>
    </header>
  );
}
