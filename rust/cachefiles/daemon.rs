// SPDX-License-Identifier: GPL-2.0

//! `/dev/cachefiles`: what a daemon can do with it.
//!
//! The device can be open once at a time. Opening it starts the configuration of a cache; commands
//! configure it, `bind` brings it into service, and closing the device takes it out again. `bind`
//! and the commands that configure the cache take a mutex; `copen`, `restore`, `cull` and `inuse`
//! do not.

use crate::{
    cache::{
        config::{
            Argument,
            Config, //
        },
        Cache, //
    },
    debug,
    kernel_next::{
        compat::EOPNOTSUPP,
        cred::{
            capable,
            Capability, //
        },
        miscdevice::{
            MiscDevice,
            MiscDeviceRegistration, //
        },
        security::SecurityId,
        sync::poll::PollEvents, //
    },
    namei::cull,
    ondemand::{
        Ondemand,
        Requests, //
    },
    protocol::command::{
        self,
        BindMode,
        Command,
        Limit, //
    },
    service::Service, //
};
use kernel::{
    fs::file::{
        flags,
        File, //
    },
    new_mutex,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::{
            ordering::{
                Acquire,
                Release, //
            },
            Atomic, //
        },
        poll::{
            PollCondVar,
            PollTable, //
        },
        Arc,
        Mutex,
        SetOnce, //
    },
    uaccess::{
        UserSliceReader,
        UserSliceWriter, //
    }, //
};

/// Whether a daemon has the device open.
static OPEN: Atomic<i32> = Atomic::new(0);

/// The right to have the device open.
struct Exclusive(());

impl Exclusive {
    fn take() -> Result<Self> {
        match OPEN.cmpxchg(0, 1, Acquire) {
            Ok(_) => Ok(Exclusive(())),
            Err(_) => Err(EBUSY),
        }
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        OPEN.store(0, Release);
    }
}

/// The configuration by the commands before `bind`, and the service that `bind` starts.
#[derive(Default)]
struct State {
    config: Config,
    /// The cache in service.
    service: Option<Service<Ondemand>>,
}

/// An open device file.
#[pin_data]
pub(crate) struct Daemon {
    #[pin]
    state: Mutex<State>,
    /// The cache, once it is bound. Here as well, so that `read()`, `poll()` and the commands of a
    /// bound cache need no lock to find it.
    cache: SetOnce<Arc<Cache<Ondemand>>>,
    poll: Arc<PollCondVar>,
    _exclusive: Exclusive,
}

impl Daemon {
    fn cache(&self) -> Option<&Cache<Ondemand>> {
        self.cache.as_ref().map(|cache| &**cache)
    }

    fn requests(&self) -> Result<&Requests> {
        self.cache()
            .map(|cache| &**cache.mode().requests())
            .ok_or(EOPNOTSUPP)
    }

    fn is_dead(&self) -> bool {
        self.cache()
            .is_some_and(|cache| cache.mode().requests().is_dead())
    }

    fn execute(&self, command: Command<'_>) -> Result {
        match command {
            Command::Bind(args) => self.bind(args),
            Command::Limit(limit, args) => self.set_limit(limit, args),
            Command::Dir(args) => self.set_dir(args),
            Command::Tag(args) => self.set_tag(args),
            Command::Secctx(args) => self.set_secctx(args),
            Command::Debug(args) => Self::set_debug(args),
            Command::Cull(name) => cull::cull(self.cache_for(name)?, name),
            Command::Inuse(name) => cull::check_in_use(self.cache_for(name)?, name),
            Command::Copen(args) => self.requests()?.copen(args),
            Command::Restore => self.restore(),
        }
    }

    /// `brun`, `bcull`, `bstop`, `frun`, `fcull`, `fstop`: when to cull, and when to stop.
    fn set_limit(&self, limit: Limit, args: &[u8]) -> Result {
        let percent = command::parse_percent(args)?;
        let set = self.state.lock().config.limits.set(limit, percent);
        set.inspect_err(|_| {
            kdebug!("Free space limits must be in range 0%<=stop<cull<run<100%\n")
        })?;
        Ok(())
    }

    /// `dir`: the directory to keep the cache in.
    fn set_dir(&self, args: &[u8]) -> Result {
        if args.is_empty() {
            kdebug!("Empty directory specified\n");
            return Err(EINVAL);
        }
        let dir = Argument::new(args)?;
        let mut state = self.state.lock();
        if state.config.dir.is_some() {
            kdebug!("Second cache directory specified\n");
            return Err(EEXIST);
        }
        state.config.dir = Some(dir);
        Ok(())
    }

    /// `tag`: the name of the cache.
    fn set_tag(&self, args: &[u8]) -> Result {
        if args.is_empty() {
            kdebug!("Empty tag specified\n");
            return Err(EINVAL);
        }
        let tag = Argument::new(args)?;
        let mut state = self.state.lock();
        // A bound cache has one in any case.
        if state.config.tag.is_some() || state.service.is_some() {
            return Err(EEXIST);
        }
        state.config.tag = Some(tag);
        Ok(())
    }

    /// `secctx`: the security context to work in.
    fn set_secctx(&self, args: &[u8]) -> Result {
        let mut state = self.state.lock();
        if args.is_empty() || state.config.secid.is_some() {
            kdebug!("Empty or second security context specified\n");
            return Err(EINVAL);
        }
        let context = Argument::new(args)?;
        let secid = SecurityId::from_context(context.as_c_str()?)?;
        state.config.secid = Some(secid);
        Ok(())
    }

    /// `debug`: what to log, for all caches.
    fn set_debug(args: &[u8]) -> Result {
        debug::set_mask(command::parse_mask(args)?);
        Ok(())
    }

    /// The cache, for `cull` and `inuse` of `name` in the working directory.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the name is a path, `EIO` if the cache is not bound.
    fn cache_for(&self, name: &[u8]) -> Result<&Cache<Ondemand>> {
        if name.contains(&b'/') {
            return Err(EINVAL);
        }
        self.cache().ok_or(EIO)
    }

    /// `restore`: a new daemon has taken over.
    fn restore(&self) -> Result {
        self.requests()?.restore();
        Ok(())
    }

    /// `bind`: brings the cache into service.
    fn bind(&self, args: &[u8]) -> Result {
        let mut state = self.state.lock();
        state.config.limits.check()?;
        if state.config.dir.is_none() {
            pr_err!("bind: no cache directory specified\n");
            return Err(EINVAL);
        }
        if state.service.is_some() {
            pr_err!("bind: the cache is bound already\n");
            return Err(EBUSY);
        }
        let options = match BindMode::parse(args) {
            Ok(BindMode::Ondemand(options)) => options,
            Ok(BindMode::Classic) => {
                pr_err!("bind: only 'bind ondemand' is supported yet\n");
                return Err(EOPNOTSUPP);
            }
            Err(e) => {
                pr_err!("bind: invalid argument\n");
                return Err(e.into());
            }
        };
        let service = Ondemand::new(options, self.poll.clone())
            .and_then(|mode| Service::bind(&state.config, mode, self.poll.clone()))
            .inspect_err(|e| pr_err!("bind: failed: {:?}\n", e))?;
        // Not populated before: the lock is held, and there was no service.
        self.cache.populate(service.cache().clone());
        state.service = Some(service);
        // A lookup may have come in while poll() could not yet see the cache.
        self.poll.notify_all();
        Ok(())
    }
}

#[vtable]
impl MiscDevice for Daemon {
    type Ptr = Pin<KBox<Self>>;
    type OwnerModule = crate::LocalModule;

    /// As in C: seeking succeeds, though the device has no position.
    const NOOP_LLSEEK: bool = true;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr> {
        if !capable(Capability::SYS_ADMIN) {
            return Err(EPERM);
        }
        let exclusive = Exclusive::take()?;
        let poll = Arc::pin_init(
            PollCondVar::new(c"cachefiles", kernel::static_lock_class!()),
            GFP_KERNEL,
        )?;
        KBox::pin_init(
            pin_init!(Self {
                state <- new_mutex!(State::default()),
                cache: SetOnce::new(),
                poll,
                _exclusive: exclusive,
            }),
            GFP_KERNEL,
        )
    }

    /// Takes the cache out of service, in the context of the task that closed the device. Waits for
    /// disk I/O, but for no daemon: tasks that wait for one fail with `EIO`.
    fn release(this: Self::Ptr, _file: &File) {
        let service = this.state.lock().service.take();
        if let Some(service) = service {
            service.withdraw();
        }
    }

    fn read(this: Pin<&Self>, file: &File, buf: UserSliceWriter) -> Result<usize> {
        let may_wait = file.flags() & flags::O_NONBLOCK == 0;
        match this.cache() {
            Some(cache) => cache.mode().requests().read_messages(buf, may_wait),
            None => Ok(0),
        }
    }

    fn write(this: Pin<&Self>, buf: UserSliceReader) -> Result<usize> {
        let len = buf.len();
        if this.is_dead() {
            return Err(EIO);
        }
        if len > PAGE_SIZE - 1 {
            return Err(EOPNOTSUPP);
        }
        let mut line = KVec::new();
        buf.read_all(&mut line, GFP_KERNEL)?;
        this.execute(Command::parse(&line)?)?;
        Ok(len)
    }

    fn poll(this: Pin<&Self>, file: &File, table: PollTable<'_>) -> PollEvents {
        table.register_wait(file, &this.poll);
        let Some(cache) = this.cache() else {
            return PollEvents::default();
        };
        let mut events = cache.mode().requests().poll();
        if cache.space().is_culling() {
            events |= PollEvents::OUT;
        }
        events
    }
}
