"""The page in a browser."""

import shutil

import pytest

CHROMIUM = '/usr/bin/chromium'


@pytest.fixture(scope='module')
def browser():
    playwright = pytest.importorskip('playwright.sync_api')
    if shutil.which(CHROMIUM) is None:
        pytest.skip(f'{CHROMIUM} is missing: apt-get install chromium')
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=CHROMIUM, args=['--no-sandbox', '--disable-gpu']
        )
        yield browser
        browser.close()


@pytest.fixture(params=[1280, 400])
def page(browser, server, request):
    """The page in windows of two widths; nothing may complain."""
    context = browser.new_context(
        viewport=dict(width=request.param, height=900)
    )
    page, complaints = context.new_page(), []
    page.set_default_timeout(20_000)

    def note(message):
        if message.type == 'error':
            complaints.append(message.text)

    page.on('console', note)
    page.on('pageerror', lambda error: complaints.append(str(error)))
    page.on('request', lambda sent: complaints.extend(foreign(sent, server)))
    page.goto(server.url)
    page.locator('.gallery-item').first.wait_for()
    yield page
    assert not complaints
    width = page.evaluate('document.documentElement.scrollWidth')
    assert width <= request.param
    context.close()


def foreign(request, server):
    """The address of a request that goes elsewhere."""
    if request.url.startswith((server.url, 'data:', 'blob:')):
        return []
    return [request.url]


def send(page, file):
    page.locator('input[type=file]').first.set_input_files(file)


def choose(page, model):
    page.get_by_label('Model').click()
    page.get_by_role('option', name=model).click()


def drawing_of(page):
    """The address of the drawing, once the browser has decoded it."""
    image = page.locator('.shown img').nth(1)
    image.wait_for()
    assert image.evaluate('one => one.decode().then(() => one.naturalWidth)')
    return image.get_attribute('src')


def test_predict_and_move_the_slider(page, files):
    send(page, files / 'picture.png')
    choose(page, 'exported')
    text = page.locator('.legend', has_text='middle')
    text.wait_for()
    first, drawing = text.inner_text(), drawing_of(page)
    page.locator('input[type=range]').focus()
    page.keyboard.press('End')
    text = page.locator('.legend', has_text='0 objects of 1.00')
    text.wait_for()
    page.locator(f'.shown img:not([src="{drawing}"])').nth(1).wait_for()
    # The same prediction: its time is the same.
    assert first.split('·')[1] == text.inner_text().split('·')[1]
    page.get_by_role('button', name='Result as JSON').click()
    page.get_by_text('"failed"').wait_for()


def test_broken_file_and_then_another(page, files):
    send(page, files / 'broken.png')
    alert = page.get_by_role('alert')
    alert.wait_for()
    assert alert.inner_text().startswith('broken.png cannot be decoded')
    page.get_by_role('button', name='Remove Image').click()
    alert.wait_for(state='detached')
    send(page, files / 'picture.png')
    page.locator('.legend').wait_for()
    assert drawing_of(page)


def test_keyboard(page):
    """An example is chosen and explained without a mouse."""
    reach(page, '.gallery-item')
    page.keyboard.press('Enter')
    page.locator('.legend').wait_for()
    reach(page, 'button:has-text("Class activation")')
    page.keyboard.press('Enter')
    activation = page.locator('.analysis img')
    activation.wait_for()
    assert activation.evaluate('one => one.decode().then(() => one.width)')
    reach(page, 'input[type=range]', 'Shift+Tab')


def reach(page, selector, key='Tab'):
    """Press a key until an element has the focus."""
    for _ in range(25):
        page.keyboard.press(key)
        if page.locator(f'{selector}:focus').count():
            return
    pytest.fail(f'{selector} cannot be reached by {key}')


def test_exported_model(page, files):
    send(page, files / 'picture.png')
    page.locator('.legend').wait_for()
    choose(page, 'exported')
    page.get_by_text('An exported model has no class activation').wait_for()
    button = page.get_by_role('button', name='Receptive field')
    assert button.is_disabled()
    page.locator('.legend', has_text='middle').wait_for()
