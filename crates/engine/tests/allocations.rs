//! A step makes no allocations per candidate and layer: it makes as many for forty candidates as for ten.

#[path = "common/tiny.rs"]
mod tiny;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use stackelberg_engine::{Dtype, Model, kernel};
use tiny::Tiny;

struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

#[allow(unsafe_code, reason = "an allocator cannot be written without")]
// SAFETY: all calls are forwarded to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's guarantee is the one that is needed here.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's guarantee is the one that is needed here.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's guarantee is the one that is needed here.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The only test of this binary: no other test may allocate at the same time.
#[test]
fn candidates_cost_no_allocations() {
    let folder = tempfile::tempdir().unwrap();
    Tiny::default().write(folder.path());
    kernel::set_threads(1);
    for &dtype in Dtype::ALL {
        let model = Model::load(folder.path(), dtype).unwrap();
        let (prefix, _) = model.prefill(&[7; 130]).unwrap();
        let count = |k: usize| {
            let tokens = vec![5; k];
            model.branch(&prefix, &tokens).unwrap();
            let before = COUNT.load(Ordering::Relaxed);
            model.branch(&prefix, &tokens).unwrap();
            COUNT.load(Ordering::Relaxed) - before
        };
        let (ten, forty) = (count(10), count(40));
        // The list of tiles is reallocated a few times.
        assert!(forty <= ten + 4 * model.config().layers, "{dtype}: {ten} for 10, {forty} for 40");
        assert!(ten < 100, "{dtype}: {ten} for 10 candidates in {} layers", model.config().layers);
    }
}
