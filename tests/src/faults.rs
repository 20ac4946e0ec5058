//! One fault after the other.

/// Runs the faults; those whose name has the text of `TOMBOLO_FAULT` in it, where that is set, for people who look at one.
#[macro_export]
macro_rules! faults {
    ($world:expr, $load:expr; $($fault:path),* $(,)?) => {
        let only = std::env::var("TOMBOLO_FAULT").unwrap_or_default();
        $(
            if stringify!($fault).contains(&only) {
                let start = std::time::Instant::now();
                eprintln!("{}", stringify!($fault));
                $fault($world, $load).await;
                eprintln!("  in {:.1} s", start.elapsed().as_secs_f64());
            }
        )*
    };
}
