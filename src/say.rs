//! Words to whoever reads along, on stdout and stderr. Never a reason to end: where nobody reads any more
//! (`serve | head -1`), they are lost, and the work goes on.

/// As `println!`.
macro_rules! say {
    ($($words:tt)*) => {{
        let _ = std::io::Write::write_fmt(
            &mut std::io::stdout(),
            format_args!("{}\n", format_args!($($words)*)),
        );
    }};
}

/// As `eprintln!`.
macro_rules! note {
    ($($words:tt)*) => {{
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("{}\n", format_args!($($words)*)),
        );
    }};
}
