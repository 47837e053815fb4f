#![no_main]
#[path = "../../tests/simulation/app.rs"]
mod app;
#[path = "../../tests/simulation/history.rs"]
mod history;
#[path = "../../tests/simulation/peers.rs"]
mod peers;
#[path = "../../tests/simulation/wire.rs"]
mod wire;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Err(wrong) = history::run_against(data) {
        panic!("{wrong:?}");
    }
});
